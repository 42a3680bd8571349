// The picture with the masks on it: zoom, pan, and where on the frame the pointer is.

const MOST_ZOOM = 40;

export class Stage {
  constructor(box, canvas) {
    this.box = box;
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.layer = document.createElement("canvas");
    this.size = { width: 1, height: 1 };
    this.picture = null;
    this.view = { scale: 1, x: 0, y: 0 };
    this.fitted = true;
    this.marks = () => {};
    this.coarse = () => {}; // what happens where the picture has fewer pixels than could be seen
    new ResizeObserver(() => this.resize()).observe(box);
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
    }, { passive: false });
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(this.box.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.box.clientHeight * ratio));
    if (this.fitted) this.fit();
    else this.draw();
  }

  setSize(width, height) {
    if (this.size.width === width && this.size.height === height) return;
    this.size = { width, height };
    this.layer.width = width;
    this.layer.height = height;
    this.fit();
  }

  fit() {
    const { clientWidth, clientHeight } = this.box;
    const scale = Math.min(clientWidth / this.size.width, clientHeight / this.size.height);
    this.view = {
      scale,
      x: (clientWidth - this.size.width * scale) / 2,
      y: (clientHeight - this.size.height * scale) / 2,
    };
    this.fitted = true;
    this.draw();
  }

  zoom(factor, x = this.box.clientWidth / 2, y = this.box.clientHeight / 2) {
    const scale = Math.min(MOST_ZOOM, Math.max(0.05, this.view.scale * factor));
    const done = scale / this.view.scale;
    this.view = { scale, x: x - (x - this.view.x) * done, y: y - (y - this.view.y) * done };
    this.fitted = false;
    this.draw();
  }

  pan(dx, dy) {
    this.view.x += dx;
    this.view.y += dy;
    this.fitted = false;
    this.draw();
  }

  /** Pixels of the screen that the frame's width takes. */
  shown() {
    return Math.round(this.size.width * this.view.scale * (window.devicePixelRatio || 1));
  }

  /** The place on the frame, in its pixels. */
  place(event) {
    const bounds = this.box.getBoundingClientRect();
    return {
      x: (event.clientX - bounds.left - this.view.x) / this.view.scale,
      y: (event.clientY - bounds.top - this.view.y) / this.view.scale,
    };
  }

  /** Draws masks, each with a colour, onto the layer over the picture. */
  paint(masks, mode) {
    const { width, height } = this.size;
    const context = this.layer.getContext("2d");
    context.clearRect(0, 0, width, height);
    const around = mode === "off" ? null : bounds(masks, width, height);
    if (!around) return;
    const image = context.createImageData(around.right - around.left, around.bottom - around.top);
    const pixels = new Uint32Array(image.data.buffer);
    for (const { mask, colour, strong } of masks) {
      const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
      const solid = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
      const fill = (((strong ? 120 : 85) << 24) | (b << 16) | (g << 8) | r) >>> 0;
      for (let y = around.top, to = 0; y < around.bottom; y++) {
        for (let x = around.left, at = y * width + x; x < around.right; x++, at++, to++) {
          if (!mask[at]) continue;
          const edge =
            x === 0 || y === 0 || x === width - 1 || y === height - 1 ||
            !mask[at - 1] || !mask[at + 1] || !mask[at - width] || !mask[at + width];
          if (edge) pixels[to] = solid;
          else if (mode === "fill") pixels[to] = fill;
        }
      }
    }
    context.putImageData(image, around.left, around.top);
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const { context, view } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(view.scale * ratio, 0, 0, view.scale * ratio, view.x * ratio, view.y * ratio);
    context.imageSmoothingEnabled = view.scale < 3;
    if (this.picture) {
      context.drawImage(this.picture, 0, 0, this.size.width, this.size.height);
      if (this.picture.width < Math.min(this.size.width, this.shown())) this.coarse();
    } else {
      context.fillStyle = "#666";
      context.fillRect(0, 0, this.size.width, this.size.height);
    }
    context.drawImage(this.layer, 0, 0);
    this.marks(context, view.scale);
  }
}

/** The part of the frame in which there are masks; null where there are none. */
function bounds(masks, width, height) {
  let [left, right, top, bottom] = [width, 0, height, 0];
  for (const { mask } of masks) {
    for (let y = 0; y < height; y++) {
      const first = mask.subarray(y * width, (y + 1) * width).indexOf(1);
      if (first < 0) continue;
      const last = mask.subarray(y * width, (y + 1) * width).lastIndexOf(1);
      left = Math.min(left, first);
      right = Math.max(right, last + 1);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y + 1);
    }
  }
  return right ? { left, right, top, bottom } : null;
}
