// The picture of an item, and what stands for it where there is none.
import { itemPath } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { hashed, initials, named } from "../lib/text.js";

const HUES = 8;

/** An <img>, or the drawn stand-in if the item has no picture or it cannot be had. */
export function picture(item, { alt = "", eager = false, large = false } = {}) {
  if (!item.picture) return blank(item);
  const image = h("img", { alt, loading: eager ? "eager" : "lazy", decoding: "async", draggable: "false" });
  image.addEventListener("error", () => { // the file may be gone where the thumbnail is kept
    image.replaceWith(large ? picture(item, { alt, eager }) : blank(item));
  }, { once: true });
  image.addEventListener("load", () => fit(image), { once: true });
  image.src = `${itemPath(item.id)}/picture${large ? "?size=original" : ""}`;
  return image;
}

/** A picture of quite another shape than its frame is shown whole. */
function fit(image) {
  const frame = image.parentElement;
  if (!frame?.classList.contains("frame") || !frame.clientWidth) return;
  const ratio = (image.naturalWidth / image.naturalHeight) / (frame.clientWidth / frame.clientHeight);
  frame.classList.toggle("loose", ratio > 1.3 || ratio < 0.77);
}

function blank(item) {
  const hue = `var(--f${hashed(item.id, HUES)})`;
  return h("div", { class: "blank", style: { "--hue": hue }, "aria-hidden": "true" },
    h("b", {}, initials(named(item))), h("span", {}, "no picture"));
}

/** A small picture without words. */
export const thumb = (item) => h("span", { class: "thumb" }, picture(item));
