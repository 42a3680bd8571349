// Changing: what is drawn on the frame, said of a target, undone and saved.

import * as api from "./api.js";
import { save } from "./drafts.js";
import { say } from "./panels.js";
import { area, encode } from "./rle.js";
import { drafts, readOnly, rowsHere, state, takeCorrections } from "./state.js";
import { openVideo, paint, refresh, show, showLists, stop } from "./view.js";

let waiting = null;

export function begin() {
  if (readOnly() || state.selected === null) return null;
  stop();
  const known = state.masks.get(state.selected);
  return known ? known.slice() : new Uint8Array(state.video.width * state.video.height);
}

export function preview(mask) {
  waiting ??= requestAnimationFrame(() => {
    waiting = null;
    paint(mask);
  });
}

export function draft(values) {
  const { video, frame, selected } = state;
  const category = video.target(selected).category;
  drafts.put({ video_id: video.video_id, object_id: selected, frame, category, ...values });
  state.ahead = null;
  refresh();
}

export function commit(mask) {
  if (!area(mask)) {
    say("an empty mask marks nothing; say “absent” where the target is not to be seen", true);
    refresh();
    return;
  }
  draft({ counts: encode(mask, state.video.height, state.video.width) });
  say("");
}

export async function boxed(box) {
  if (readOnly() || state.selected === null) return;
  stop();
  const { video, frame, selected } = state;
  say("the network looks at the box …");
  try {
    const found = await api.post("box", { video_id: video.video_id, frame, box });
    if (video !== state.video || frame !== state.frame || selected !== state.selected) return;
    if (!found.area) say("the network finds nothing in this box; draw it closer around the target, or paint", true);
    else {
      draft({ counts: found.counts });
      say(`a mask of ${found.area} pixels`);
    }
  } catch (error) {
    say(error.message, true);
  }
}

export function absent() {
  if (readOnly() || state.selected === null) return;
  draft({ absent: true });
  say(`object ${state.selected} is not to be seen from frame ${state.frame} on`);
}

export function rename(target, category) {
  if (readOnly() || category === (target.category ?? "")) return;
  const { video } = state;
  const saved = rowsHere().some((row) => row.object_id === target.object_id);
  const known = target.frames.length > 0 || saved;
  if (known && !category) {
    say("a category cannot be taken away; give another one", true);
    showLists();
    return;
  }
  target.category = category || null;
  if (known) drafts.put({ video_id: video.video_id, object_id: target.object_id, frame: null, category });
  for (const one of drafts.all) {
    if (one.video_id === video.video_id && one.object_id === target.object_id) drafts.put({ ...one, category });
  }
  showLists();
}

export function undo() {
  const about = drafts.undo();
  if (!about) return;
  if (about.video_id !== state.video.video_id) openVideo(about.video_id, about.frame);
  else if (about.frame !== null && about.frame !== state.frame) show(about.frame);
  else refresh();
}

export async function saveDrafts() {
  const all = drafts.all;
  if (!all.length || readOnly()) return;
  try {
    takeCorrections(await save(api, state.corrections, all));
    drafts.saved(all);
    say(state.kind === "mark" ? "saved" : `saved; ${state.pending} to be tracked again`);
  } catch (error) {
    if (error.corrections) takeCorrections(error.corrections);
    if (error.status === 423) state.locked = error.message;
    say(error.message, true);
  }
  refresh();
}

export async function remove(row) {
  if (readOnly()) return;
  const spot = { video_id: row.video_id, object_id: row.object_id, frame: row.frame };
  try {
    takeCorrections(await api.post("corrections", { version: state.corrections.version, removed: [spot] }));
    say(state.kind === "mark" ? "removed" : "removed; where it has been tracked already, the run's own manifest keeps it");
  } catch (error) {
    say(error.message, true);
    if (error.status === 409) takeCorrections(await api.get("corrections"));
  }
  refresh();
}

/** Shows the next frames as they are tracked from what is marked on this one; nothing is kept of it. */
export async function lookAhead() {
  const { video, frame } = state;
  const { width, height } = video;
  const marked = [...state.masks].map(([object_id, mask]) => ({ object_id, counts: encode(mask, height, width) }));
  if (!marked.length) {
    say("nothing is marked on this frame", true);
    return;
  }
  stop();
  say("tracking the next frames …");
  try {
    const found = await api.post("ahead", { video_id: video.video_id, frame, marked });
    if (video !== state.video) return;
    state.ahead = new Map(Object.entries(found).map(([at, rows]) => [Number(at), rows]));
    say(`the next ${state.ahead.size - 1} frames as they are tracked from here; → or space shows them`);
    refresh();
  } catch (error) {
    say(error.message, true);
  }
}

/** Drops what is not saved on this frame. */
export function dropDraft() {
  const known = drafts.get(state.video.video_id, state.selected, state.frame);
  if (known) drafts.drop(known);
  refresh();
}
