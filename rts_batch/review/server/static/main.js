// The page: what keys and buttons do.

import * as api from "./api.js";
import { absent, begin, boxed, commit, dropDraft, lookAhead, preview, remove, rename, saveDrafts, undo } from "./edit.js";
import { $, element } from "./panels.js";
import { loadRun, startRedo } from "./redo.js";
import { drafts, hooks, onlyCategory, readOnly, state } from "./state.js";
import { Pointer, TOOLS } from "./tools.js";
import { choose, goVideo, goWorst, MODES, openVideo, play, refresh, setMode, show, stage, stop, trouble } from "./view.js";

const pointer = new Pointer(stage, { begin, preview, commit, boxed });
Object.assign(hooks, { rename, remove, leave: () => pointer.cancel() });

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

function setTool(name) {
  if (TOOLS.find((tool) => tool.name === name).edits && readOnly()) return;
  pointer.choose(name);
  for (const button of $("tools").querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }
}

function setRadius(radius) {
  pointer.radius = Math.min(200, Math.max(1, radius));
  $("radius").value = String(Math.round(pointer.radius));
  stage.draw();
}

function press(event) {
  if (event.target.closest("input:not([type=checkbox]), select, dialog") || event.altKey || !state.video) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && !["s", "z"].includes(event.key)) return;
  if (event.target.closest("button, input") && [" ", "Enter"].includes(event.key)) return;
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

const group = (...buttons) => element("span", { className: "group" }, ...buttons);

function build() {
  const brush = element("input", { type: "range", id: "radius", min: "1", max: "80", value: "8" });
  brush.addEventListener("input", () => setRadius(Number(brush.value)));
  $("tools").append(
    ...TOOLS.map((tool) => button(tool.label, tool.title, () => setTool(tool.name), { tool: tool.name, ...(tool.edits ? { edits: "" } : {}) })),
    button("Absent", "The target is not to be seen from this frame on (a)", absent, { edits: "" }),
    button("Look ahead", "Track the next frames from this one, to try (v)", lookAhead),
    element("label", {}, "brush", brush),
    group(...MODES.map((mode) => button(mode === "off" ? "no masks" : mode, "How masks are shown (m)", () => setMode(mode), { mode }))),
    group(
      button("−", "Smaller (-)", () => stage.zoom(0.8)),
      button("fit", "Whole frame (0)", () => stage.fit()),
      button("+", "Larger (+)", () => stage.zoom(1.25)),
      button("Keys", "All keys (?)", () => $("help").showModal()),
    ),
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
  const first = state.videos.find((video) => !video.problem) ?? state.videos[0];
  if (first) await openVideo(first.video_id);
} catch (error) {
  trouble(error.message);
}
