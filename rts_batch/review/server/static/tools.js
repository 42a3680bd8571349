// What the pointer does on the frame: pan, draw a box, paint, erase, draw a polygon.

export const TOOLS = [
  { name: "look", key: "l", label: "Look", title: "Drag to move the picture (l)" },
  { name: "box", key: "b", label: "Box", title: "Draw a box; the network makes a mask of it (b)", edits: true },
  { name: "paint", key: "d", label: "Brush", title: "Paint the mask (d)", edits: true },
  { name: "erase", key: "e", label: "Eraser", title: "Erase from the mask (e)", edits: true },
  { name: "polygon", key: "g", label: "Polygon", title: "Click corners; Enter or a double click adds what is inside, Backspace cuts it out, r makes it the whole mask (g)", edits: true },
];

export class Pointer {
  /** `desk` gives the mask to be changed (`begin`), is shown it while it changes (`preview`) and takes it (`commit`);
   * `boxed` takes a box. */
  constructor(stage, desk) {
    this.stage = stage;
    this.desk = desk;
    this.tool = "look";
    this.radius = 8;
    this.corners = [];
    this.box = null;
    this.drag = null;
    this.at = null;
    stage.marks = (context, scale) => this.draw(context, scale);
    const element = stage.box;
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    element.addEventListener("pointerup", (event) => this.up(event));
    element.addEventListener("pointercancel", () => this.cancel());
    element.addEventListener("dblclick", () => this.close());
    element.addEventListener("pointerleave", () => { this.at = null; this.stage.draw(); });
  }

  choose(tool) {
    this.cancel();
    this.tool = tool;
    this.stage.box.dataset.tool = tool;
  }

  cancel() {
    const under = this.box || this.corners.length || this.drag;
    this.box = null;
    this.corners = [];
    this.drag = null;
    this.stage.draw();
    return Boolean(under);
  }

  down(event) {
    this.stage.box.focus({ preventScroll: true });
    this.stage.box.setPointerCapture(event.pointerId);
    const place = this.stage.place(event);
    if (this.tool === "look" || event.button === 1) {
      this.drag = { pan: true, x: event.clientX, y: event.clientY };
      return;
    }
    if (event.button !== 0) return;
    if (this.tool === "box") {
      this.box = { from: place, to: place };
    } else if (this.tool === "polygon") {
      const last = this.corners.at(-1);
      if (!last || Math.hypot(last.x - place.x, last.y - place.y) * this.stage.view.scale > 3) this.corners.push(place);
      this.stage.draw();
    } else {
      const mask = this.desk.begin();
      if (!mask) return;
      this.drag = { mask, from: place };
      this.stroke(place);
    }
  }

  move(event) {
    const place = this.stage.place(event);
    this.at = place;
    if (this.drag?.pan) {
      this.stage.pan(event.clientX - this.drag.x, event.clientY - this.drag.y);
      this.drag.x = event.clientX;
      this.drag.y = event.clientY;
    } else if (this.box) {
      this.box.to = place;
      this.stage.draw();
    } else if (this.drag) {
      this.stroke(place);
    } else if (this.tool !== "look") {
      this.stage.draw();
    }
  }

  up() {
    const { box, drag } = this;
    this.drag = null;
    if (box) {
      this.box = null;
      const x = Math.min(box.from.x, box.to.x);
      const y = Math.min(box.from.y, box.to.y);
      const w = Math.abs(box.from.x - box.to.x);
      const h = Math.abs(box.from.y - box.to.y);
      this.stage.draw();
      if (w >= 2 && h >= 2) this.desk.boxed([x, y, w, h]);
    } else if (drag?.mask) {
      this.desk.commit(drag.mask);
    }
  }

  /** Paints or erases along a line with a round brush. */
  stroke(to) {
    const { mask, from } = this.drag;
    const { width, height } = this.stage.size;
    const value = this.tool === "paint" ? 1 : 0;
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(1, this.radius / 2)));
    for (let step = 0; step <= steps; step++) {
      const x = from.x + ((to.x - from.x) * step) / steps;
      const y = from.y + ((to.y - from.y) * step) / steps;
      for (let row = Math.max(0, Math.floor(y - this.radius)); row <= Math.min(height - 1, y + this.radius); row++) {
        const reach = Math.sqrt(Math.max(0, this.radius ** 2 - (row + 0.5 - y) ** 2));
        const start = Math.max(0, Math.ceil(x - reach - 0.5));
        const end = Math.min(width, Math.floor(x + reach - 0.5) + 1);
        if (end > start) mask.fill(value, row * width + start, row * width + end);
      }
    }
    this.drag.from = to;
    this.desk.preview(mask);
  }

  /** Closes the polygon: what is inside is added to the mask, cut out of it, or is all of it. */
  close(how = "add") {
    if (this.tool !== "polygon" || this.corners.length < 3) return false;
    const mask = this.desk.begin();
    if (!mask) return false;
    if (how === "replace") mask.fill(0);
    const { width, height } = this.stage.size;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    this.trace(context);
    context.fill();
    const { data } = context.getImageData(0, 0, width, height);
    for (let at = 0; at < mask.length; at++) if (data[4 * at + 3] > 127) mask[at] = how === "cut" ? 0 : 1;
    this.corners = [];
    this.desk.commit(mask);
    return true;
  }

  trace(context) {
    context.beginPath();
    this.corners.forEach(({ x, y }, place) => (place ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
  }

  draw(context, scale) {
    context.lineWidth = 1.5 / scale;
    context.strokeStyle = "#fff";
    context.setLineDash([5 / scale, 3 / scale]);
    if (this.box) {
      const { from, to } = this.box;
      context.strokeRect(from.x, from.y, to.x - from.x, to.y - from.y);
    }
    if (this.corners.length) {
      this.trace(context);
      context.stroke();
      for (const { x, y } of this.corners) context.strokeRect(x - 2 / scale, y - 2 / scale, 4 / scale, 4 / scale);
    }
    context.setLineDash([]);
    if (this.at && (this.tool === "paint" || this.tool === "erase")) {
      context.beginPath();
      context.arc(this.at.x, this.at.y, this.radius, 0, 2 * Math.PI);
      context.stroke();
    }
  }
}
