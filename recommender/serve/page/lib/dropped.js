// Pictures that were dropped or pasted. They stay on this page: an address holds a mark of them, not the picture.
const held = new Map();
const GREATEST = 20 * 1024 * 1024;

/** Keep a picture and answer its mark. Throws an Error that can be shown for what is none. */
export async function hold(file) {
  if (!file?.type?.startsWith("image/")) throw new Error("That is not a picture. Drop a JPEG, PNG or WebP file.");
  if (file.size > GREATEST) throw new Error("The picture is larger than 20 MB. Drop a smaller one.");
  const data = new Uint8Array(await file.arrayBuffer());
  let mark = 2166136261;
  for (const byte of data) mark = Math.imul(mark ^ byte, 16777619);
  const name = (mark >>> 0).toString(36) + data.length.toString(36);
  if (!held.has(name)) held.set(name, { file, address: URL.createObjectURL(file),
    name: file.name || "pasted picture" });
  return name;
}

/** {file, address, name} of a mark, or null on a page that never saw the picture. */
export const dropped = (mark) => held.get(mark) ?? null;

/** The picture among what was pasted or dropped, or null. */
export function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? transfer?.files?.[0] ?? null;
}
