// COCO's compressed run-length code: runs down the columns, zeros first, six bits to a character.

/** Reads compressed counts into the lengths of the runs. Throws where they do not fill a mask of this size. */
export function parseRuns(counts, height, width) {
  const runs = [];
  let at = 0;
  let sum = 0;
  while (at < counts.length) {
    let value = 0;
    let shift = 0;
    let digit;
    do {
      if (at >= counts.length) throw new Error("the RLE breaks off in the middle of a count");
      digit = counts.charCodeAt(at++) - 48;
      if (digit < 0 || digit > 63 || shift > 35) throw new Error("the RLE holds what no COCO count contains");
      value += (digit & 31) * 2 ** shift;
      shift += 5;
    } while (digit & 32);
    if (digit & 16) value -= 2 ** shift;
    if (runs.length > 2) value += runs[runs.length - 2];
    if (value < 0) throw new Error("the RLE has a negative run");
    runs.push(value);
    sum += value;
  }
  if (sum !== height * width) throw new Error("the runs of the RLE do not add up to the mask");
  return runs;
}

/** A mask, row by row, one byte for each pixel. */
export function decode(counts, height, width) {
  const mask = new Uint8Array(height * width);
  let place = 0;
  let value = 0;
  for (const run of parseRuns(counts, height, width)) {
    if (value) {
      let x = Math.floor(place / height);
      let y = place % height;
      for (let left = run; left > 0; left--) {
        mask[y * width + x] = 1;
        if (++y === height) {
          y = 0;
          x++;
        }
      }
    }
    place += run;
    value = 1 - value;
  }
  return mask;
}

/** The compressed counts of a mask. */
export function encode(mask, height, width) {
  const runs = [];
  let value = 0;
  let run = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      if (mask[at] === value) {
        run++;
      } else {
        runs.push(run);
        value = mask[at];
        run = 1;
      }
    }
  }
  runs.push(run);
  let text = "";
  for (let i = 0; i < runs.length; i++) {
    let left = i > 2 ? runs[i] - runs[i - 2] : runs[i];
    for (let more = true; more; ) {
      let digit = left & 31;
      left >>= 5;
      more = digit & 16 ? left !== -1 : left !== 0;
      if (more) digit |= 32;
      text += String.fromCharCode(digit + 48);
    }
  }
  return text;
}

export function area(mask) {
  let sum = 0;
  for (let i = 0; i < mask.length; i++) sum += mask[i];
  return sum;
}
