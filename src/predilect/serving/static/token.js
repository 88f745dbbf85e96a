/** Asks for the server's token. */

import { byId, tell } from "./dom.js";

/**
 * @param {boolean} wrong Whether the server refused one before.
 * @returns {Promise<string|null>} null: the person would not say.
 */
export function askForToken(wrong) {
  const [dialog, input] = ["token", "token-input"].map(byId);
  tell(byId("token-problem"), wrong ? "That is not the right token." : "");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        tell(byId("token-problem"), "");
        resolve(dialog.returnValue === "given" ? input.value : null);
        input.value = "";
      },
      { once: true },
    );
  });
}
