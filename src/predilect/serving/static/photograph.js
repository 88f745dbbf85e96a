/** The photograph: how it comes to the page, and how it is shown. */

import { byId, measure } from "./dom.js";

/** Take photographs that are dropped, pasted, picked or taken; `onPhotograph` gets the first file of each. */
export function receive(onPhotograph) {
  const first = (files) => {
    if (files?.length) onPhotograph(files[0]);
    return Boolean(files?.length);
  };
  for (const [button, input] of [["pick", "pick-input"], ["take", "take-input"]].map((ids) => ids.map(byId))) {
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      first(input.files);
      input.value = ""; // so that the same file may be picked again
    });
  }
  byId("invitation").addEventListener("click", () => byId("pick").click());
  addEventListener("paste", (event) => {
    if (first(event.clipboardData?.files)) event.preventDefault();
  });

  let inside = 0; // elements that something is dragged over
  const dragging = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (change) => {
    inside = change === 0 ? 0 : Math.max(0, inside + change);
    document.body.classList.toggle("is-dropping", inside > 0);
  };
  addEventListener("dragenter", (event) => dragging(event) && mark(1));
  addEventListener("dragleave", (event) => dragging(event) && mark(-1));
  addEventListener("dragover", (event) => dragging(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!dragging(event)) return;
    event.preventDefault();
    mark(0);
    first(event.dataTransfer.files);
  });
}

let url = null;

/** Show a photograph at once, from this machine's memory. */
export function preview(file) {
  forget();
  url = URL.createObjectURL(file);
  const picture = byId("picture");
  picture.onload = () => frame(picture.naturalWidth, picture.naturalHeight);
  picture.onerror = () => {
    byId("frame").hidden = true;
    byId("no-preview").hidden = false;
  };
  picture.src = url;
  picture.alt = `Your photograph, ${file.name || "without a name"}`;
  byId("invitation").hidden = true;
  byId("file-name").textContent = file.name;
}

/** Let go of it. */
export function forget() {
  const picture = byId("picture");
  picture.onload = picture.onerror = null;
  picture.removeAttribute("src");
  picture.alt = "";
  if (url !== null) URL.revokeObjectURL(url); // once nothing loads it any more
  url = null;
  byId("frame").hidden = byId("no-preview").hidden = true;
  byId("invitation").hidden = false;
  byId("file-name").textContent = "";
}

function frame(width, height) {
  const element = byId("frame");
  measure(element, { "--ratio": width / height });
  element.hidden = false;
}
