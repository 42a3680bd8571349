// Quality, state and area of each target over the frames, on one axis.

const LEFT = 44;
const RIGHT = 10;
const TOP = 22;
const AXIS = 30;
const STRIP = 5;
const CLOSE = 6;

export class Timeline {
  constructor(canvas, { jump, tell }) {
    this.canvas = canvas;
    this.lines = document.createElement("canvas"); // all but the cursor: it is drawn anew when something changes
    this.drawn = [];
    this.context = this.lines.getContext("2d");
    this.tell = tell;
    this.video = null;
    this.frame = 0;
    this.selected = null;
    this.saved = [];
    this.drafts = [];
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", () => this.draw());
    let down = false;
    canvas.addEventListener("pointerdown", (event) => {
      down = true;
      canvas.setPointerCapture(event.pointerId);
      jump(this.frameNear(event.offsetX));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.video) return;
      if (down) jump(this.frameAt(event.offsetX));
      tell(this.frameNear(event.offsetX));
    });
    canvas.addEventListener("pointerup", () => (down = false));
    canvas.addEventListener("pointerleave", () => tell(null));
  }

  get span() {
    return Math.max(1, this.video.end - 1 - this.video.first);
  }

  x(frame) {
    return LEFT + ((frame - this.video.first) / this.span) * (this.width - LEFT - RIGHT);
  }

  frameAt(x) {
    const share = (x - LEFT) / Math.max(1, this.width - LEFT - RIGHT);
    return Math.round(this.video.first + Math.min(1, Math.max(0, share)) * this.span);
  }

  /** The frame at a place, or the mark that is so near that it is meant. */
  frameNear(x) {
    const marks = [...this.video.worst.map((place) => place.frame), ...this.saved];
    const near = marks.filter((frame) => Math.abs(this.x(frame) - x) <= CLOSE);
    near.sort((a, b) => Math.abs(this.x(a) - x) - Math.abs(this.x(b) - x));
    return near.length ? near[0] : this.frameAt(x);
  }

  draw() {
    const { canvas, video, lines } = this;
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    const shown = [width, height, ratio, this.dark.matches, video, video?.targets.length, this.selected, String(this.saved), String(this.drafts)];
    if (shown.some((value, place) => value !== this.drawn[place])) {
      this.drawn = shown;
      this.width = width;
      canvas.width = lines.width = Math.max(1, Math.round(width * ratio));
      canvas.height = lines.height = Math.max(1, Math.round(height * ratio));
      this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
      this.bottom = video ? this.drawLines(height) : 0;
      this.ink = getComputedStyle(document.documentElement).getPropertyValue("--ink");
    }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(lines, 0, 0);
    if (!video) return;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.strokeStyle = this.ink;
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(this.x(this.frame), 4);
    context.lineTo(this.x(this.frame), this.bottom);
    context.stroke();
  }

  /** Draws everything but the cursor, and returns how far that reaches down. */
  drawLines(height) {
    const { context, video } = this;
    const style = getComputedStyle(document.documentElement);
    const ink = (name) => style.getPropertyValue(name).trim();
    const shown = video.targets.filter((target) => target.frames.length).slice(0, 12);
    if (!shown.length) {
      this.drawAxis(height - AXIS, ink);
      for (const frame of this.saved) this.drawDiamond(frame, height / 2 - 10, ink("--good"));
      for (const frame of this.drafts) this.drawDiamond(frame, height / 2 - 10, ink("--accent"));
      return height - AXIS;
    }
    const strips = shown.length * (STRIP + 1);
    const left = height - TOP - AXIS - strips - 10;
    const quality = { top: TOP, bottom: TOP + left * 0.62 };
    const area = { top: quality.bottom + 8, bottom: TOP + left + 4 };
    context.font = "11px system-ui, sans-serif";
    this.drawGrid(quality, area, ink);
    for (const place of video.worst) this.drawWorst(place, quality, area, ink("--bad"));
    const top = Math.max(1, ...shown.map((target) => target.areas.reduce((most, value) => Math.max(most, value), 0)));
    const order = [...shown].sort((a, b) => (a.object_id === this.selected) - (b.object_id === this.selected));
    for (const target of order) {
      const faint = this.selected !== null && target.object_id !== this.selected && shown.length > 1;
      context.globalAlpha = faint ? 0.35 : 1;
      context.strokeStyle = target.colour;
      context.lineWidth = 1.6;
      const known = (at) => (target.qualities[at] === 255 ? null : target.qualities[at] / 200);
      this.drawLine(target, known, Math.min, quality);
      this.drawLine(target, (at) => target.areas[at] / top, Math.max, area);
      context.globalAlpha = 1;
    }
    shown.forEach((target, place) => this.drawStates(target, area.bottom + 4 + place * (STRIP + 1), ink));
    this.drawAxis(area.bottom + strips + 6, ink);
    for (const frame of this.saved) this.drawDiamond(frame, quality.bottom + 4, ink("--good"));
    for (const frame of this.drafts) this.drawDiamond(frame, quality.bottom + 4, ink("--accent"));
    return area.bottom + strips + 6;
  }

  drawGrid(quality, area, ink) {
    const { context } = this;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.lineWidth = 1;
    for (const [value, name] of [[0, "0"], [0.5, "0.5"], [1, "1"]]) {
      const y = quality.bottom - value * (quality.bottom - quality.top);
      context.strokeStyle = ink("--line");
      context.beginPath();
      context.moveTo(LEFT, y + 0.5);
      context.lineTo(this.width - RIGHT, y + 0.5);
      context.stroke();
      context.fillStyle = ink("--soft");
      context.fillText(name, LEFT - 4, y);
    }
    context.fillText("area", LEFT - 4, (area.top + area.bottom) / 2);
    context.textAlign = "left";
    context.fillText(this.video.targets[0]?.measure ?? "", 2, 6);
    if (this.video.threshold) {
      const y = quality.bottom - this.video.threshold * (quality.bottom - quality.top);
      context.setLineDash([4, 4]);
      context.strokeStyle = ink("--doubt");
      context.beginPath();
      context.moveTo(LEFT, y);
      context.lineTo(this.width - RIGHT, y);
      context.stroke();
      context.setLineDash([]);
    }
  }

  drawWorst(place, quality, area, colour) {
    const { context } = this;
    const x = this.x(place.frame);
    context.fillStyle = colour;
    context.globalAlpha = 0.16;
    context.fillRect(x - 2, quality.top, 4, area.bottom - quality.top);
    context.globalAlpha = 1;
    context.beginPath();
    context.moveTo(x - 5, TOP - 12);
    context.lineTo(x + 5, TOP - 12);
    context.lineTo(x, TOP - 3);
    context.fill();
  }

  /** A line through one value for each pixel, the least or the greatest of those that fall on it. */
  drawLine(target, value, pick, { top, bottom }) {
    const { context } = this;
    const columns = new Map();
    for (let at = 0; at < target.frames.length; at++) {
      const found = value(at);
      const x = Math.round(this.x(target.frames[at]) * 2) / 2;
      if (at && target.frames[at] !== target.frames[at - 1] + 1 && !columns.has(x)) columns.set(`gap before ${x}`, null);
      if (found === null) {
        if (!columns.has(x)) columns.set(x, null);
        continue;
      }
      const known = columns.get(x);
      columns.set(x, known === undefined || known === null ? found : pick(known, found));
    }
    context.beginPath();
    let pen = false;
    for (const [x, found] of columns) {
      if (found === null) {
        pen = false;
        continue;
      }
      const y = bottom - found * (bottom - top);
      if (pen) context.lineTo(x, y);
      else context.moveTo(x - 1, y), context.lineTo(x + 1, y); // seen also where it is alone
      pen = true;
    }
    context.stroke();
  }

  drawStates(target, y, ink) {
    const { context } = this;
    const colours = { uncertain: ink("--doubt"), mask_lost: ink("--bad"), lost: ink("--bad") };
    context.fillStyle = target.colour;
    context.fillRect(LEFT - 12, y, 8, STRIP);
    const step = Math.max(1, this.x(1) - this.x(0));
    const { frames, states, state_names } = target;
    let start = 0;
    for (let at = 1; at <= frames.length; at++) {
      if (at < frames.length && states[at] === states[start] && frames[at] === frames[at - 1] + 1) continue;
      const colour = colours[state_names[states[start]]];
      context.fillStyle = colour ?? ink("--line");
      const left = Math.max(LEFT, this.x(frames[start]) - step / 2);
      const right = Math.min(this.width - RIGHT, this.x(frames[at - 1]) + step / 2);
      context.fillRect(left, y, Math.max(1, right - left), STRIP);
      start = at;
    }
  }

  drawAxis(y, ink) {
    const { context, video } = this;
    const most = Math.max(2, Math.floor((this.width - LEFT - RIGHT) / 84));
    const rough = this.span / most;
    const power = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
    const step = Math.max(1, [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? power * 10);
    context.textBaseline = "top";
    for (let frame = Math.ceil(video.first / step) * step; frame < video.end; frame += step) {
      const x = this.x(frame);
      context.strokeStyle = ink("--soft");
      context.beginPath();
      context.moveTo(x, y - 3);
      context.lineTo(x, y + 2);
      context.stroke();
      context.textAlign = x > this.width - 30 ? "right" : x < LEFT + 20 ? "left" : "center";
      context.fillStyle = ink("--ink");
      context.fillText(String(frame), x, y + 2);
      context.fillStyle = ink("--soft");
      const time = video.time(frame);
      if (time !== null) context.fillText(clock(time), x, y + 14);
    }
    context.fillStyle = ink("--soft");
    context.textAlign = "left";
    context.fillText("frame", 2, y + 2);
    if (video.time(video.first) !== null) context.fillText("time", 2, y + 14);
  }

  drawDiamond(frame, y, colour) {
    const { context } = this;
    const x = this.x(frame);
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(x, y - 6);
    context.lineTo(x + 6, y);
    context.lineTo(x, y + 6);
    context.lineTo(x - 6, y);
    context.fill();
  }
}

/** Seconds as m:ss.mmm. */
export function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  const rest = (seconds - minutes * 60).toFixed(seconds < 600 ? 2 : 0);
  return `${minutes}:${rest.padStart(seconds < 600 ? 5 : 2, "0")}`;
}
