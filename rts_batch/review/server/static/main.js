// The page: what is shown, and what keys and buttons do.

import * as api from "./api.js";
import { Drafts, save } from "./drafts.js";
import { $, element, listSaved, listTargets, listVideos, say } from "./panels.js";
import { area, encode } from "./rle.js";
import { Stage } from "./stage.js";
import { clock, Timeline } from "./timeline.js";
import { Pointer, TOOLS } from "./tools.js";
import { Video } from "./video.js";

const MODES = ["fill", "outline", "off"];
const AHEAD = 6;
const BEHIND = 12; // a video is decoded forward, so that going back needs more time
const POLL = 1000;

const state = {
  videos: [], video: null, frame: 0, selected: null, mode: "fill", masks: new Map(), locked: null,
  corrections: { version: "none", rows: [] }, pending: 0, playing: false, step: 1, turn: 0, worst: -1, redo: "idle",
};
const drafts = new Drafts();
const stage = new Stage($("stage"), $("picture"));
const timeline = new Timeline($("timeline"), { jump: (frame) => show(frame), tell: hover });
const pointer = new Pointer(stage, { begin, preview, commit, boxed });
const readOnly = () => state.locked !== null || state.redo === "running";

// ---- what is shown

async function loadRun() {
  const run = await api.get("run");
  state.videos = run.videos;
  state.kind = run.kind;
  state.categories = run.categories;
  document.body.dataset.kind = run.kind;
  document.title = run.kind === "run" ? `Review of ${run.title}` : run.title;
  $("title").textContent = run.title;
  state.locked = run.locked;
  state.pending = run.pending;
  await loadCorrections();
  showRedo(run.redo);
}

async function loadCorrections() {
  takeCorrections(await api.get("corrections"));
}

function takeCorrections(found) {
  state.corrections = { version: found.version, rows: found.rows };
  state.pending = found.pending;
}

async function openVideo(id, frame = null) {
  stop();
  const turn = ++state.turn;
  try {
    const video = await Video.open(id);
    if (turn !== state.turn) return;
    const known = new Set(video.targets.map((target) => target.object_id));
    const more = [...drafts.all.filter((draft) => draft.video_id === id), ...rowsHere(id)];
    for (const { object_id } of more) while (object_id > Math.max(0, ...known)) known.add(video.addTarget().object_id);
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

/** What a new target is called where there is no choice. */
const onlyCategory = () => (state.categories.length === 1 ? state.categories[0] : null);

const rowsHere = (id = state.video?.video_id) => state.corrections.rows.filter((row) => row.video_id === id);

async function show(frame) {
  const { video } = state;
  if (!video) return;
  frame = Math.min(Math.max(frame, video.first), Math.max(video.first, video.end - 1));
  state.step = frame < state.frame ? -1 : 1;
  state.frame = timeline.frame = frame;
  pointer.cancel();
  showPlace();
  const turn = ++state.turn;
  const [picture, counts] = await Promise.allSettled([video.picture(frame), video.counts(frame)]);
  if (turn !== state.turn) return;
  stage.picture = picture.status === "fulfilled" ? picture.value : null;
  const problem = [picture, counts].find((result) => result.status === "rejected");
  trouble(problem ? problem.reason.message : null);
  takeMasks(counts.status === "fulfilled" ? counts.value : new Map());
  stage.box.dataset.frame = String(frame); // what can be seen now
  prefetch(turn);
}

/** Asks for the frames that come next, one after another, for as long as nobody goes elsewhere. */
async function prefetch(turn) {
  const { video, frame, step } = state;
  for (let ahead = 1; ahead <= (step > 0 ? AHEAD : BEHIND); ahead++) {
    const next = frame + ahead * step;
    if (next < video.first || next >= video.end || turn !== state.turn) return;
    try {
      await video.picture(next);
    } catch {
      return; // it is said where the frame is shown
    }
  }
}

/** The masks of this frame: not saved, saved, or the run's own, in this order. */
function takeMasks(counts) {
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

/** A box as a mask, where a row has no more. */
function filled([x, y, w, h], { width, height }) {
  const mask = new Uint8Array(width * height);
  const [left, right] = [Math.max(0, Math.round(x)), Math.min(width, Math.round(x + w))];
  for (let row = Math.max(0, Math.round(y)); row < Math.min(height, Math.round(y + h)); row++) {
    mask.fill(1, row * width + left, row * width + right);
  }
  return mask;
}

function paint(changed = null) {
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

function showPlace() {
  const { video, frame } = state;
  const time = video.time(frame);
  $("place").textContent = `frame ${frame} of ${video.first}–${video.end - 1}${time === null ? "" : `, ${clock(time)}`}`;
  const place = video.worst.find((one) => one.frame === frame);
  $("reasons").textContent = place ? place.reasons.join("; ") : "";
  timeline.draw();
}

function showLists() {
  const { video } = state;
  if (!video) return;
  listTargets(video.targets, state.categories, {
    selected: state.selected, readOnly: readOnly(), choose, rename,
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
  listSaved(rowsHere(), { readOnly: readOnly(), go: show, remove });
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

function trouble(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text ?? "";
}

function hover(frame) {
  const { video } = state;
  if (frame === null || !video) {
    $("hover").textContent = "";
    return;
  }
  const parts = video.targets.slice(0, 6).flatMap((target) => {
    const here = video.at(target, frame);
    if (!here) return [];
    const quality = here.quality === null ? here.state : `${target.measure} ${here.quality.toFixed(2)}`;
    return [`object ${target.object_id}: ${quality}, ${here.area} pixels`];
  });
  const time = video.time(frame);
  const place = video.worst.find((one) => one.frame === frame);
  $("hover").textContent = [
    `frame ${frame}${time === null ? "" : `, ${clock(time)}`}`, ...parts, ...(place ? place.reasons : []),
  ].join(" · ");
}

// ---- going about

function choose(id) {
  state.selected = id;
  paint();
  showLists();
}

function goWorst(step) {
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

function goVideo(step) {
  const at = state.videos.findIndex((video) => video.video_id === state.video?.video_id);
  const next = state.videos[at + step];
  if (next) openVideo(next.video_id);
}

async function play() {
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

function stop() {
  state.playing = false;
  $("play").setAttribute("aria-pressed", "false");
}

function setMode(mode) {
  state.mode = mode;
  for (const button of $("tools").querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  }
  if (state.video) paint();
}

function setTool(name) {
  if (TOOLS.find((tool) => tool.name === name).edits && readOnly()) return;
  pointer.choose(name);
  for (const button of $("tools").querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }
}

// ---- changing

function begin() {
  if (readOnly() || state.selected === null) return null;
  stop();
  const known = state.masks.get(state.selected);
  return known ? known.slice() : new Uint8Array(state.video.width * state.video.height);
}

let waiting = null;
function preview(mask) {
  waiting ??= requestAnimationFrame(() => {
    waiting = null;
    paint(mask);
  });
}

function draft(values) {
  const { video, frame, selected } = state;
  const category = video.target(selected).category;
  drafts.put({ video_id: video.video_id, object_id: selected, frame, category, ...values });
  state.ahead = null;
  refresh();
}

async function refresh() {
  const { video, frame } = state;
  const counts = await video.counts(frame).catch(() => new Map());
  if (video === state.video && frame === state.frame) takeMasks(counts);
}

function commit(mask) {
  if (!area(mask)) {
    say("an empty mask marks nothing; say “absent” where the target is not to be seen", true);
    refresh();
    return;
  }
  draft({ counts: encode(mask, state.video.height, state.video.width) });
  say("");
}

async function boxed(box) {
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

function absent() {
  if (readOnly() || state.selected === null) return;
  draft({ absent: true });
  say(`object ${state.selected} is not to be seen from frame ${state.frame} on`);
}

function rename(target, category) {
  if (readOnly() || category === (target.category ?? "")) return;
  target.category = category || null;
  const { video } = state;
  const saved = rowsHere().some((row) => row.object_id === target.object_id);
  if (target.frames.length || saved) drafts.put({ video_id: video.video_id, object_id: target.object_id, frame: null, category });
  for (const one of drafts.all) {
    if (one.video_id === video.video_id && one.object_id === target.object_id) drafts.put({ ...one, category });
  }
  showLists();
}

function undo() {
  const about = drafts.undo();
  if (!about) return;
  if (about.video_id !== state.video.video_id) openVideo(about.video_id, about.frame);
  else if (about.frame !== null && about.frame !== state.frame) show(about.frame);
  else refresh();
}

async function saveDrafts() {
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

async function remove(row) {
  if (readOnly()) return;
  const spot = { video_id: row.video_id, object_id: row.object_id, frame: row.frame };
  try {
    takeCorrections(await api.post("corrections", { version: state.corrections.version, removed: [spot] }));
    say(state.kind === "mark" ? "removed" : "removed; where it has been tracked already, the run's own manifest keeps it");
  } catch (error) {
    say(error.message, true);
    if (error.status === 409) await loadCorrections();
  }
  refresh();
}

/** Shows the next frames as they are tracked from what is marked on this one; nothing is kept of it. */
async function lookAhead() {
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
function dropDraft() {
  const known = drafts.get(state.video.video_id, state.selected, state.frame);
  if (known) drafts.drop(known);
  refresh();
}

// ---- tracking again

async function startRedo() {
  if (readOnly()) return;
  await saveDrafts();
  if (!state.pending) return;
  try {
    showRedo(await api.post("redo"));
  } catch (error) {
    say(error.message, true);
  }
}

function showRedo(found) {
  const was = state.redo;
  state.redo = found.state;
  const running = found.state === "running";
  $("redo-bar").hidden = $("redo-stop").hidden = !running;
  if (running) {
    const [video] = found.videos ?? [];
    const bar = $("redo-bar");
    if (video?.expected) Object.assign(bar, { max: video.expected, value: video.frames });
    else bar.removeAttribute("value");
    $("redo-text").textContent = video
      ? `tracking ${video.video_id}: ${video.frames} of ${video.expected ?? "?"} frames`
      : "starting …";
    setTimeout(pollRedo, POLL);
  } else if (was === "running") {
    const failures = found.summary?.failures?.length ?? 0;
    $("redo-text").textContent = found.state === "done" ? "tracked again" : failures ? `${failures} failed` : "failed";
    if (found.state === "failed") say(found.message ?? "the run failed", true);
    reload();
  }
  showLists();
}

async function pollRedo() {
  try {
    const found = await api.get("redo");
    state.pending = found.pending;
    state.locked = found.locked;
    showRedo(found);
  } catch {
    setTimeout(pollRedo, POLL);
  }
}

async function reload() {
  const { video, frame } = state;
  await loadRun();
  await openVideo(video?.video_id ?? state.videos[0].video_id, frame);
}

// ---- keys and buttons

const KEYS = [
  ["←  →", "one frame back, on", { ArrowLeft: (e) => show(state.frame - (e.shiftKey ? 10 : 1)), ArrowRight: (e) => show(state.frame + (e.shiftKey ? 10 : 1)) }],
  ["Shift + ←  →", "ten frames", {}],
  ["Home  End", "first, last frame", { Home: () => show(state.video.first), End: () => show(state.video.end - 1) }],
  ["space", "play, stop", { " ": play }],
  ["w  W", "next, previous of the worst places", { w: () => goWorst(1), W: () => goWorst(-1) }],
  ["Page ↓  Page ↑", "next, previous video", { PageDown: () => goVideo(1), PageUp: () => goVideo(-1) }],
  ["1 … 9", "choose a target", {}],
  ["m", "masks filled, as outlines, off", { m: () => setMode(MODES[(MODES.indexOf(state.mode) + 1) % MODES.length]) }],
  ["+  −  0", "larger, smaller, fit", { "+": () => stage.zoom(1.25), "=": () => stage.zoom(1.25), "-": () => stage.zoom(0.8), 0: () => stage.fit() }],
  ...TOOLS.map((tool) => [tool.key, tool.title.replace(/ \(.\)$/, ""), { [tool.key]: () => setTool(tool.name) }]),
  ["v", "look ahead: track the next frames from here, to try", { v: lookAhead }],
  ["a", "the target is absent from this frame on", { a: absent }],
  ["x", "drop what is not saved on this frame", { x: dropDraft }],
  ["z", "undo", { z: undo }],
  ["s", "save", { s: saveDrafts }],
  ["t", "track the corrected videos again", { t: startRedo }],
  ["[  ]", "smaller, larger brush", { "[": () => setRadius(pointer.radius * 0.8), "]": () => setRadius(pointer.radius * 1.25) }],
  ["Enter  Backspace  r", "the polygon is added, cut out, the whole mask", {
    Enter: () => pointer.close("add"), Backspace: () => pointer.close("cut"), r: () => pointer.close("replace"),
  }],
  ["Esc", "leave the polygon or box", { Escape: () => pointer.cancel() }],
  ["?", "this list", { "?": () => $("help").showModal() }],
];
const ACTIONS = Object.assign({}, ...KEYS.map(([, , actions]) => actions));

function setRadius(radius) {
  pointer.radius = Math.min(200, Math.max(1, radius));
  $("radius").value = String(Math.round(pointer.radius));
  stage.draw();
}

function press(event) {
  if (event.target.closest("input, select, dialog") || event.altKey || !state.video) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && !["s", "z"].includes(event.key)) return;
  if (event.target.closest("button") && [" ", "Enter"].includes(event.key)) return;
  const number = Number(event.key);
  if (number >= 1 && number <= 9) {
    const target = state.video.targets[number - 1];
    if (target) choose(target.object_id);
    return;
  }
  const action = ACTIONS[event.key];
  if (!action) return;
  event.preventDefault();
  if (event.key !== " " && !event.key.startsWith("Page")) stop();
  action(event);
}

function button(label, title, action, data = {}) {
  const made = element("button", { type: "button", title }, label);
  Object.assign(made.dataset, data);
  made.addEventListener("click", action);
  return made;
}

function build() {
  const brush = element("input", { type: "range", id: "radius", min: "1", max: "80", value: "8" });
  brush.addEventListener("input", () => setRadius(Number(brush.value)));
  $("tools").append(
    ...TOOLS.map((tool) => button(tool.label, tool.title, () => setTool(tool.name), { tool: tool.name, ...(tool.edits ? { edits: "" } : {}) })),
    button("Absent", "The target is not to be seen from this frame on (a)", absent, { edits: "" }),
    button("Look ahead", "Track the next frames from this one, to try (v)", lookAhead),
    element("label", {}, "brush", brush),
    element("span", { className: "gap" }),
    ...MODES.map((mode) => button(mode === "off" ? "no masks" : mode, "How masks are shown (m)", () => setMode(mode), { mode })),
    element("span", { className: "gap" }),
    button("−", "Smaller (-)", () => stage.zoom(0.8)),
    button("fit", "Whole frame (0)", () => stage.fit()),
    button("+", "Larger (+)", () => stage.zoom(1.25)),
    button("Keys", "All keys (?)", () => $("help").showModal()),
  );
  $("keys").append(...KEYS.flatMap(([keys, what]) => [element("dt", {}, keys), element("dd", {}, what)]));
  const clicks = {
    first: () => show(state.video.first), back: () => show(state.frame - 1), forth: () => show(state.frame + 1), play,
    worst: () => goWorst(1), undo, save: saveDrafts, "redo-start": startRedo, "redo-stop": () => api.post("stop"),
    "new-target": () => choose(state.video.addTarget(onlyCategory()).object_id),
  };
  for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", action);
  document.addEventListener("keydown", press);
  window.addEventListener("beforeunload", (event) => drafts.all.length && event.preventDefault());
  document.addEventListener("visibilitychange", async () => {
    if (document.hidden || state.redo === "running") return;
    await loadRun().catch(() => {});
    if (state.video) refresh();
  });
  setMode("fill");
  setTool("look");
}

build();
try {
  await loadRun();
  if (state.videos.length) await openVideo(state.videos[0].video_id);
} catch (error) {
  trouble(error.message);
}
