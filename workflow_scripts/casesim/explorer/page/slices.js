// Slices of volumes, the contours of labels in them, and where two label maps differ.
// Volumes are z (feet to head), y (front to back), x (right to left), in C order; only the
// voxels inside their box are stored.
"use strict";

Explorer.slices = (() => {
  // Axis -> the axes of rows and columns. Heads are up: rows that are z run downwards.
  const ACROSS = [[1, 2], [0, 2], [0, 1]];
  const MARKS = [
    { left: "R", right: "L", top: "A", bottom: "P" },
    { left: "R", right: "L", top: "S", bottom: "I" },
    { left: "A", right: "P", top: "S", bottom: "I" },
  ];

  function size(shape, axis) {
    const [rows, columns] = ACROSS[axis];
    return { height: shape[rows], width: shape[columns] };
  }

  // One slice of the whole grid, what lies outside the box filled with 0.
  function extract(volume, axis, index) {
    const { shape, box, voxels } = volume;
    const { height, width } = size(shape, axis);
    const values = new voxels.constructor(height * width);
    const low = [box[0], box[2], box[4]];
    const high = [box[1], box[3], box[5]];
    if (index < low[axis] || index >= high[axis]) return { height, width, values };
    const stride = [(high[1] - low[1]) * (high[2] - low[2]), high[2] - low[2], 1];
    const [rows, columns] = ACROSS[axis];
    const start = (index - low[axis]) * stride[axis];
    for (let r = low[rows]; r < high[rows]; r++) {
      const row = rows === 0 ? shape[0] - 1 - r : r;
      let from = start + (r - low[rows]) * stride[rows];
      let to = row * width + low[columns];
      for (let c = low[columns]; c < high[columns]; c++) {
        values[to++] = voxels[from];
        from += stride[columns];
      }
    }
    return { height, width, values };
  }

  // Edges between pixels whose labels differ: [x0, y0, x1, y1] in pixels, runs joined.
  // `group` gives each label number its group; those in group 0 are outside.
  function contours({ height, width, values }, group) {
    const at = (r, c) =>
      r < 0 || c < 0 || r >= height || c >= width ? 0 : group[values[r * width + c]];
    const edges = [];
    for (let r = 0; r <= height; r++) {
      let from = -1;
      for (let c = 0; c <= width; c++) {
        const edge = c < width && at(r - 1, c) !== at(r, c);
        if (edge && from < 0) from = c;
        if (!edge && from >= 0) {
          edges.push([from, r, c, r]);
          from = -1;
        }
      }
    }
    for (let c = 0; c <= width; c++) {
      let from = -1;
      for (let r = 0; r <= height; r++) {
        const edge = r < height && at(r, c - 1) !== at(r, c);
        if (edge && from < 0) from = r;
        if (!edge && from >= 0) {
          edges.push([c, from, c, r]);
          from = -1;
        }
      }
    }
    return edges;
  }

  // The labels inside a box, by group, as a dense block.
  function inside({ box, voxels }, block, group) {
    const rows = block[3] - block[2];
    const columns = block[5] - block[4];
    const dense = new Uint16Array((block[1] - block[0]) * rows * columns);
    let from = 0;
    for (let z = box[0]; z < box[1]; z++) {
      for (let y = box[2]; y < box[3]; y++) {
        let to = ((z - block[0]) * rows + y - block[2]) * columns + box[4] - block[4];
        for (let x = box[4]; x < box[5]; x++) dense[to++] = group[voxels[from++]];
      }
    }
    return dense;
  }

  // For each slice, how many voxels have another label in one map than in the other, where
  // the reference is not ignored.
  function differences(a, b, axis, group, reference = b) {
    const counts = new Uint32Array(a.shape[axis]);
    const boxes = [a.box, b.box].filter((box) => box[1] > box[0]);
    if (!boxes.length) return counts;
    const block = boxes[0].map((_, i) =>
      (i % 2 ? Math.max : Math.min)(...boxes.map((other) => other[i])),
    );
    const [first, second] = [inside(a, block, group), inside(b, block, group)];
    const { ignore } = Explorer.study;
    const marked = new Uint16Array(65536);
    if (ignore !== null) marked[ignore] = 1;
    const ignored = inside(reference, block, marked);
    let at = 0;
    for (let z = block[0]; z < block[1]; z++) {
      for (let y = block[2]; y < block[3]; y++) {
        for (let x = block[4]; x < block[5]; x++, at++) {
          if (first[at] !== second[at] && !ignored[at]) counts[axis === 0 ? z : axis === 1 ? y : x]++;
        }
      }
    }
    return counts;
  }

  const EMPTY = (shape) => ({ shape, box: [0, 0, 0, 0, 0, 0], voxels: new Uint8Array(0) });

  // The slice to show first: where model and reference differ most, else where the
  // reference has most, else the middle. The lowest where that ties.
  function first(counts, reference, axis, group) {
    for (const numbers of [
      counts,
      differences(reference, EMPTY(reference.shape), axis, group, reference),
    ]) {
      const most = numbers.reduce((a, b) => Math.max(a, b), 0);
      if (most > 0) return numbers.indexOf(most);
    }
    return reference.shape[axis] >> 1;
  }

  return { ACROSS, MARKS, EMPTY, size, extract, contours, differences, first };
})();
