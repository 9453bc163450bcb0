// What the page is made of: scripts that hand over their content, and how it is unpacked.
"use strict";

const Explorer = { study: null };

(() => {
  const parts = new Map(); // name -> promise of the content
  const takers = new Map(); // name -> what to do when the script hands it over
  const MOST_CASES = 6; // whose decoded images and label maps are kept in memory
  const cases = new Map(); // case -> { channels, maps }, the latest last

  // Called by each script of data/.
  Explorer.receive = (name, content) => {
    if (name === "study") Explorer.study = content;
    else takers.get(name)?.(content);
  };

  // A script, not fetch(): a page from a disk may load the one, but not read by the other.
  function load(name) {
    if (parts.has(name)) return parts.get(name);
    const promise = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      takers.set(name, resolve);
      script.src = "data/" + name.split("/").map(encodeURIComponent).join("/") + ".js";
      script.onload = () => script.remove();
      script.onerror = () => {
        script.remove();
        parts.delete(name);
        reject(new Error(`${name} cannot be read`));
      };
      document.head.append(script);
    }).finally(() => takers.delete(name));
    parts.set(name, promise);
    return promise;
  }

  Explorer.bytes = (base64) => {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  };

  Explorer.floats = (base64) => new Float32Array(Explorer.bytes(base64).buffer);

  async function inflate(base64) {
    const stream = new Blob([Explorer.bytes(base64)])
      .stream()
      .pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  function boxSize([z0, z1, y0, y1, x0, x1]) {
    return (z1 - z0) * (y1 - y0) * (x1 - x0);
  }

  async function unpackMap(part) {
    const buffer = boxSize(part.box) ? await inflate(part.data) : new ArrayBuffer(0);
    const voxels = part.bytes === 2 ? new Uint16Array(buffer) : new Uint8Array(buffer);
    return { shape: part.shape, box: part.box, voxels };
  }

  // Slices lie one below the other in a sprite, so its pixels are the voxels in their order.
  async function unpackSprite(base64) {
    const blob = new Blob([Explorer.bytes(base64)], { type: "image/webp" });
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    const canvas = document.createElement("canvas");
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const grey = new Uint8Array(pixels.length / 4);
    for (let i = 0; i < grey.length; i++) grey[i] = pixels[4 * i];
    return grey;
  }

  async function unpackChannel(part) {
    if (part.left_out) return null;
    const voxels = new Uint8Array(boxSize(part.box));
    let filled = 0;
    for (const sprite of part.sprites) {
      const grey = await unpackSprite(sprite);
      voxels.set(grey, filled);
      filled += grey.length;
    }
    return { ...part, sprites: null, voxels };
  }

  function keep(name) {
    const found = cases.get(name) ?? { channels: new Map(), maps: new Map() };
    cases.delete(name);
    cases.set(name, found);
    for (const old of cases.keys()) {
      if (cases.size <= MOST_CASES) break;
      cases.delete(old);
      for (const part of parts.keys()) if (part.startsWith(`${old}/`)) parts.delete(part);
    }
    return found;
  }

  // One of the channels that the page has, by its place in study.channels: a promise of
  // { shape, spacing, box, range, window, voxels }, or of null where it is left out.
  Explorer.channel = (name, place) => {
    const { channels } = keep(name);
    if (!channels.has(place)) {
      channels.set(place, load(`${name}/channel_${place}`).then(unpackChannel));
    }
    return channels.get(place);
  };

  // A label map ("reference", "base", "finetuned/<case>", ...): a promise of
  // { shape, box, voxels }, or of null where it is left out or missing.
  Explorer.map = (name, model) => {
    const { maps } = keep(name);
    if (!maps.has(model)) {
      const part = Explorer.study.served
        ? load(`${name}/maps/${model}`)
        : load(`${name}/maps`).then((content) => content.maps[model]);
      maps.set(model, part.then((content) => (content ? unpackMap(content) : null)));
    }
    return maps.get(model);
  };

  Explorer.element = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  Explorer.byId = (id) => document.getElementById(id);

  // Two digits more than a reader needs to tell values apart; a dash where undefined.
  Explorer.digits = (value, places = 3) =>
    value === null || Number.isNaN(value) ? "–" : value.toFixed(places);

  Explorer.readable = (name) => String(name).replaceAll("_", " ");
})();
