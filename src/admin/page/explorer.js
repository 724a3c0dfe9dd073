import { h } from "./dom.js";

export function explorerView() {
  return { element: h("p", { class: "empty" }, "…"), update() {} };
}
