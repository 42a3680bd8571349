// What the page knows, and what stands in the way of changing it.

import { Drafts } from "./drafts.js";

export const state = {
  videos: [], video: null, frame: 0, selected: null, mode: "fill", masks: new Map(), locked: null,
  corrections: { version: "none", rows: [] }, pending: 0, playing: false, step: 1, turn: 0, worst: -1, redo: "idle",
};

export const drafts = new Drafts();

/** What other parts of the page do when these happen; `main.js` says what. */
export const hooks = { rename: () => {}, remove: () => {}, leave: () => {} };

export const readOnly = () => state.locked !== null || state.redo === "running";

/** What a new target is called where there is no choice. */
export const onlyCategory = () => (state.categories.length === 1 ? state.categories[0] : null);

export const rowsHere = (id = state.video?.video_id) => state.corrections.rows.filter((row) => row.video_id === id);

export function takeCorrections(found) {
  state.corrections = { version: found.version, rows: found.rows };
  state.pending = found.pending;
}
