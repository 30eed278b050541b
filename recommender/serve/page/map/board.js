// The canvas of the map: drawing, panning, zooming, and which point is meant.
import { h } from "../lib/dom.js";
import { fitting, moved, toMap, toScreen, zoomed } from "./camera.js";
import { lookup } from "./nearest.js";
import { packed, paint } from "./painter.js";

const REACH = 14; // pixels from the pointer within which a point is meant
const STEP = 70; // pixels that an arrow key moves
const MANY = 20_000; // points from which drawing is thrifty
const MORPH = 700; // milliseconds from one layout to another

const LABEL = "Map of the catalogue. Arrow keys move it, plus and minus zoom, Enter opens the item in the middle, "
  + "0 shows all.";

/** pointed(at or -1, [x, y]): a point is meant, with its place on the screen. chosen(at): it was clicked, or entered. */
export function board({ pointed, chosen }) {
  const canvas = h("canvas", { tabindex: "0", role: "application", "aria-roledescription": "map",
    "aria-label": LABEL });
  const ring = h("div", { class: "ring", hidden: true });
  const cross = h("div", { class: "cross", hidden: true });
  const element = h("div", { class: "board" }, canvas, ring, cross);
  const context = canvas.getContext("2d", { alpha: false });
  const state = { points: new Float32Array(), colours: new Uint32Array(), order: new Uint32Array(),
    allowed: () => true, near: () => -1, camera: null, marked: -1, meant: -1 };
  let image = null, width = 0, height = 0, density = 1, frame = 0, rest = 0;

  const draw = () => { frame ||= requestAnimationFrame(() => { frame = 0; paintNow(); }); };

  /** Many points are drawn coarsely while the map moves, and finely once it rests. */
  function move() {
    if (state.points.length > 2 * MANY && density !== 1) {
      clearTimeout(rest);
      rest = setTimeout(() => { sharpen(Math.min(devicePixelRatio || 1, 2)); }, 160);
      sharpen(1);
    }
    draw();
  }

  function sharpen(wanted) {
    density = wanted;
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    image = context.createImageData(canvas.width, canvas.height);
    paintNow();
  }

  function paintNow() {
    if (!image || !state.camera) return;
    const style = getComputedStyle(element);
    const ground = packed(style.getPropertyValue("--ground").trim());
    const n = state.points.length / 2;
    const zoom = Math.max(state.camera.scale / (Math.min(width, height) / 2), 1);
    const radius = Math.min(Math.max((n > MANY ? 1.5 : n > 4_000 ? 2.2 : 3) * zoom ** 0.35, 1.3), 7) * density;
    const camera = { ...state.camera, scale: state.camera.scale * density };
    paint(image, ground, { ...state, camera, radius, alpha: state.sheer ? 120 : n > MANY ? 256 : 230 });
    context.putImageData(image, 0, 0);
    place(ring, state.meant >= 0 ? state.meant : state.marked);
  }

  function place(mark, at) {
    mark.hidden = at < 0;
    if (at < 0) return;
    const [x, y] = screen(at);
    mark.style.setProperty("transform", `translate(${x}px, ${y}px)`);
  }

  const screen = (at) => toScreen(state.camera, state.points[2 * at], state.points[2 * at + 1], width, height);

  function resize() {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height) return;
    const first = !width;
    [width, height] = [box.width, box.height];
    if (first && state.points.length) fit();
    sharpen(Math.min(devicePixelRatio || 1, 2));
  }

  function fit() { state.camera = fitting(state.points, width, height); draw(); }

  function mean(at) {
    if (at === state.meant) return;
    state.meant = at;
    canvas.classList.toggle("on-point", at >= 0);
    pointed(at, at >= 0 ? screen(at) : null);
    draw();
  }

  const under = (x, y, reach = REACH) => {
    if (!state.camera) return -1;
    const [mapX, mapY] = toMap(state.camera, x, y, width, height);
    return state.near(mapX, mapY, reach / state.camera.scale, state.allowed);
  };
  const local = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  const fingers = new Map();
  let travelled = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, local(event));
    travelled = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = local(event);
    const before = fingers.get(event.pointerId);
    cross.hidden = true;
    if (!before) { mean(under(x, y)); return; }
    if (!state.camera) return;
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = Math.max(Math.hypot(before[0] - other[0], before[1] - other[1]), 1);
      const grown = Math.hypot(x - other[0], y - other[1]) / apart;
      state.camera = zoomed(state.camera, grown, (x + other[0]) / 2, (y + other[1]) / 2, width, height);
    } else {
      state.camera = moved(state.camera, x - before[0], y - before[1]);
    }
    travelled += Math.hypot(x - before[0], y - before[1]);
    fingers.set(event.pointerId, [x, y]);
    if (travelled > 4) mean(-1);
    move();
  });
  const lift = (event) => {
    if (!fingers.delete(event.pointerId) || event.type !== "pointerup" || travelled > 4) return;
    const at = under(...local(event), event.pointerType === "touch" ? 24 : REACH);
    mean(at);
    if (at >= 0) chosen(at);
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", () => { if (!fingers.size) mean(-1); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (!state.camera) return;
    const factor = Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016));
    state.camera = zoomed(state.camera, factor, ...local(event), width, height);
    mean(-1);
    move();
  }, { passive: false });

  const zoomBy = (factor) => {
    if (!state.camera) return;
    state.camera = zoomed(state.camera, factor, width / 2, height / 2, width, height);
    draw();
  };
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP],
      ArrowDown: [0, -STEP] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !state.camera) return;
    if (step) state.camera = moved(state.camera, ...step);
    else if (event.key === "+" || event.key === "=") zoomBy(1.35);
    else if (event.key === "-") zoomBy(1 / 1.35);
    else if (event.key === "0") fit();
    else if (event.key === "Enter") { if (state.meant >= 0) chosen(state.meant); }
    else return;
    event.preventDefault();
    cross.hidden = false;
    mean(-1);
    mean(under(width / 2, height / 2, 90));
    draw();
  });
  canvas.addEventListener("blur", () => { cross.hidden = true; });

  const watch = new ResizeObserver(resize);
  watch.observe(element);
  document.addEventListener("theme", draw);

  return {
    element,
    fit, zoomBy, screen,
    /** Points at once, or by way of where they are now. */
    place(points, { gently = false } = {}) {
      const from = state.points;
      const show = (now) => { state.points = now; draw(); };
      const arrive = () => { state.near = lookup(points); };
      if (!gently || from.length !== points.length) { show(points); arrive(); if (width) fit(); return; }
      state.near = () => -1;
      const start = performance.now();
      const [old, aim] = [state.camera, fitting(points, width, height)];
      const step = (now) => {
        const t = Math.min((now - start) / MORPH, 1);
        const share = t * t * (3 - 2 * t);
        if (t === 1) { state.camera = aim; show(points); arrive(); return; }
        const between = (one, other) => one + (other - one) * share;
        state.camera = { x: between(old.x, aim.x), y: between(old.y, aim.y), scale: between(old.scale, aim.scale) };
        state.points = points.map((value, at) => between(from[at], value));
        move();
        requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    },
    /**
     * colours: a pixel each. order: which are drawn, the last on top. allowed: which can be meant. sheer: what lies
     * below shines through, so that many together are darker.
     */
    colour({ colours, order, allowed, sheer = false }) {
      Object.assign(state, { colours, order, allowed, sheer });
      draw();
    },
    /** Ring a point, and bring it into the middle. */
    mark(at) {
      state.marked = at;
      if (at >= 0 && state.camera) {
        const scale = Math.max(state.camera.scale, Math.min(width, height) * 1.4);
        state.camera = { x: state.points[2 * at], y: state.points[2 * at + 1], scale };
      }
      draw();
    },
    destroy() {
      watch.disconnect();
      document.removeEventListener("theme", draw);
      cancelAnimationFrame(frame);
      clearTimeout(rest);
    },
  };
}
