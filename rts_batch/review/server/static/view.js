// What is shown: a video, a frame with its masks, the lists beside it; and going about in it.

import { $, listSaved, listTargets, listVideos, say } from "./panels.js";
import { Stage } from "./stage.js";
import { drafts, hooks, onlyCategory, readOnly, rowsHere, state } from "./state.js";
import { clock, Timeline } from "./timeline.js";
import { Video } from "./video.js";

export const MODES = ["fill", "outline", "off"];
const AHEAD = 6;
const BEHIND = 12; // a video is decoded forward, so that going back needs more time
const TURN = 3; // somebody may turn round
const REST = 150; // ms after which somebody has done zooming

export const stage = new Stage($("stage"), $("picture"));
const timeline = new Timeline($("timeline"), { jump: (frame) => show(frame), tell: hover });

let sharpening = null;
stage.coarse = () => {
  clearTimeout(sharpening);
  sharpening = setTimeout(sharpen, REST);
};

/** Shows this frame with as many pixels as can be seen now. */
async function sharpen() {
  const { video, turn } = state;
  const picture = await video?.picture(state.frame, stage.shown()).catch(() => null);
  if (turn !== state.turn || !picture || picture.width <= stage.picture?.width) return;
  stage.picture = picture;
  stage.draw();
}

export async function openVideo(id, frame = null) {
  stop();
  const turn = ++state.turn;
  try {
    const video = await Video.open(id);
    if (turn !== state.turn) return;
    const known = new Set(video.targets.map((target) => target.object_id));
    const more = [...drafts.all.filter((draft) => draft.video_id === id), ...rowsHere(id)];
    for (const { object_id } of more) {
      if (!known.has(object_id)) known.add(video.addTarget(null, object_id).object_id);
    }
    for (const { object_id, category } of more) if (category && known.has(object_id)) video.target(object_id).category = category;
    if (!video.targets.length && !readOnly()) video.addTarget(onlyCategory());
    state.video = timeline.video = video;
    state.ahead = null;
    state.worst = -1;
    state.selected = video.targets[0]?.object_id ?? null;
    stage.picture = null;
    stage.setSize(video.width, video.height);
    stage.fit();
    await show(frame ?? video.first);
  } catch (error) {
    trouble(error.message);
  }
  listVideos(state.videos, state.video?.video_id, openVideo);
}

export async function show(frame) {
  const { video } = state;
  if (!video) return;
  frame = Math.min(Math.max(frame, video.first), Math.max(video.first, video.end - 1));
  state.step = frame < state.frame ? -1 : 1;
  state.frame = timeline.frame = frame;
  const asked = Promise.allSettled([video.picture(frame, stage.shown()), video.counts(frame)]);
  const turn = ++state.turn;
  hooks.leave();
  showPlace();
  const [picture, counts] = await asked;
  if (turn !== state.turn) return;
  stage.picture = picture.status === "fulfilled" ? picture.value : null;
  const problem = [picture, counts].find((result) => result.status === "rejected");
  trouble(problem ? problem.reason.message : null);
  takeMasks(counts.status === "fulfilled" ? counts.value : new Map());
  stage.box.dataset.frame = String(frame); // what can be seen now
  prefetch(turn);
}

/** Asks for the frames that come next, one after another, for as long as nobody goes elsewhere. */
export async function prefetch(turn) {
  const { video, frame, step } = state;
  const places = Array.from({ length: step > 0 ? AHEAD : BEHIND }, (_, place) => step * (place + 1));
  places.splice(1, 0, -step);
  for (let back = 2; back <= TURN; back++) places.push(-step * back);
  for (const away of places) {
    const next = frame + away;
    if (next < video.first || next >= video.end || turn !== state.turn) return;
    try {
      await video.picture(next, stage.shown());
    } catch {
      return; // it is said where the frame is shown
    }
  }
}

/** The masks of this frame: not saved, saved, or the run's own, in this order. */
export function takeMasks(counts) {
  const { video, frame } = state;
  state.masks = new Map();
  for (const [id, code] of counts) state.masks.set(id, video.decode(code));
  for (const row of rowsHere()) {
    if (row.frame !== frame) continue;
    if (row.absent) state.masks.delete(row.object_id);
    else if (row.box) state.masks.set(row.object_id, filled(row.box, video));
    else if (row.mask?.startsWith("{")) state.masks.set(row.object_id, video.decode(JSON.parse(row.mask).counts));
  }
  for (const [id, code] of state.ahead?.get(frame) ?? []) state.masks.set(id, video.decode(code));
  for (const draft of drafts.of(video.video_id, frame)) {
    if (draft.absent) state.masks.delete(draft.object_id);
    else state.masks.set(draft.object_id, video.decode(draft.counts));
  }
  paint();
  showLists();
}

export async function refresh() {
  const { video, frame } = state;
  const counts = await video.counts(frame).catch(() => new Map());
  if (video === state.video && frame === state.frame) takeMasks(counts);
}

/** A box as a mask, where a row has no more. */
export function filled([x, y, w, h], { width, height }) {
  const mask = new Uint8Array(width * height);
  const [left, right] = [Math.max(0, Math.round(x)), Math.min(width, Math.round(x + w))];
  for (let row = Math.max(0, Math.round(y)); row < Math.min(height, Math.round(y + h)); row++) {
    mask.fill(1, row * width + left, row * width + right);
  }
  return mask;
}

export function paint(changed = null) {
  const shown = state.video.targets
    .map((target) => ({
      colour: target.colour,
      strong: target.object_id === state.selected,
      mask: changed && target.object_id === state.selected ? changed : state.masks.get(target.object_id),
    }))
    .filter(({ mask }) => mask);
  stage.paint(shown, state.mode);
  stage.draw();
}

export function showPlace() {
  const { video, frame } = state;
  const time = video.time(frame);
  $("place").textContent = `frame ${frame} of ${video.first}–${video.end - 1}${time === null ? "" : `, ${clock(time)}`}`;
  const place = video.worst.find((one) => one.frame === frame);
  $("reasons").textContent = place ? place.reasons.join("; ") : "";
  timeline.draw();
}

export function showLists() {
  const { video } = state;
  if (!video) return;
  listTargets(video.targets, state.categories, {
    selected: state.selected, readOnly: readOnly(), choose, rename: hooks.rename,
    value: (target) => {
      const here = video.at(target, state.frame);
      if (drafts.get(video.video_id, target.object_id, state.frame)) return "changed, not saved";
      if (!here) {
        if (state.masks.has(target.object_id)) return state.ahead?.has(state.frame) ? "tracked, to try" : "marked";
        return state.kind === "mark" ? "not marked on this frame" : "no row on this frame";
      }
      return `${here.state}${here.quality === null ? "" : `, ${target.measure} ${here.quality.toFixed(2)}`}, ${here.area} pixels`;
    },
  });
  listSaved(rowsHere(), {
    readOnly: readOnly(), go: show, remove: hooks.remove, label: (id) => video.target(id)?.label ?? id,
  });
  timeline.selected = state.selected;
  timeline.saved = rowsHere().map((row) => row.frame);
  timeline.drafts = drafts.all.filter((one) => one.video_id === video.video_id && one.frame !== null).map((one) => one.frame);
  timeline.draw();
  const many = drafts.all.length;
  $("drafts").textContent = many ? `${many} change${many > 1 ? "s" : ""}` : "nothing";
  $("save").disabled = !many || readOnly();
  $("undo").disabled = !drafts.history.length;
  $("lock").hidden = state.locked === null || state.redo === "running";
  $("lock").textContent = `Read-only: ${state.locked ?? ""}`;
  $("redo-start").disabled = readOnly() || !state.pending;
  $("new-target").disabled = readOnly();
  for (const button of $("tools").querySelectorAll("[data-edits]")) button.disabled = readOnly();
}

export function trouble(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text ?? "";
}

export function hover(frame) {
  const { video } = state;
  if (frame === null || !video) {
    $("hover").textContent = "";
    return;
  }
  const parts = video.targets.slice(0, 6).flatMap((target) => {
    const here = video.at(target, frame);
    if (!here) return [];
    const quality = here.quality === null ? here.state : `${target.measure} ${here.quality.toFixed(2)}`;
    return [`object ${target.label}: ${quality}, ${here.area} pixels`];
  });
  const time = video.time(frame);
  const place = video.worst.find((one) => one.frame === frame);
  $("hover").textContent = [
    `frame ${frame}${time === null ? "" : `, ${clock(time)}`}`, ...parts, ...(place ? place.reasons : []),
  ].join(" · ");
}

export function choose(id) {
  state.selected = id;
  paint();
  showLists();
}

export function goWorst(step) {
  const { worst } = state.video;
  if (!worst.length) {
    say("no place of this video stands out");
    return;
  }
  state.worst = state.worst < 0 && step < 0 ? worst.length - 1 : (state.worst + step + worst.length) % worst.length;
  const place = worst[state.worst];
  say(`worst place ${state.worst + 1} of ${worst.length}: ${place.reasons.join("; ")}`);
  if (place.object_id !== null) choose(place.object_id);
  show(place.frame);
}

export function goVideo(step) {
  const at = state.videos.findIndex((video) => video.video_id === state.video?.video_id);
  const next = state.videos[at + step];
  if (next) openVideo(next.video_id);
}

export async function play() {
  if (state.playing) {
    stop();
    return;
  }
  state.playing = true;
  $("play").setAttribute("aria-pressed", "true");
  const wait = 1000 / Math.min(60, state.video.fps || 25);
  while (state.playing && state.frame < state.video.end - 1) {
    const began = performance.now();
    await show(state.frame + 1);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, wait - (performance.now() - began))));
  }
  stop();
}

export function stop() {
  state.playing = false;
  $("play").setAttribute("aria-pressed", "false");
}

export function setMode(mode) {
  state.mode = mode;
  for (const button of $("tools").querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  }
  if (state.video) paint();
}
