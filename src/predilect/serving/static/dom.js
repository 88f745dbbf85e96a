/** Elements, made and found. */

/** The element with an id. */
export const byId = (id) => document.getElementById(id);

/**
 * An element with attributes and children; text is only ever text.
 * @param {string} name Such as "li".
 * @param {Object<string, string|boolean|null>} attributes true: present without a value; false and null: absent.
 * @param {...(Node|string)} children
 */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false && value !== null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** An element of SVG, with attributes. */
export function draw(name, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Numbers for the style sheet; the policy of this page allows no style attribute. */
export function measure(element, values) {
  for (const [name, value] of Object.entries(values)) element.style.setProperty(name, String(value));
}

/** Show a sentence in its place, in a section that can have the focus, with a way to go on if there is one; nothing: take it away. */
export function tell(element, text, again = null) {
  element.hidden = !text;
  element.replaceChildren(...(text ? [make("p", {}, text)] : []));
  if (text && again) {
    const button = make("button", { type: "button", class: "quiet" }, "Try again");
    const go = () => {
      element.closest("section").focus({ preventScroll: true }); // the button goes
      again();
    };
    button.addEventListener("click", go, { once: true });
    element.append(button);
  }
}

/** Whether things may move. */
export const mayMove = () => !matchMedia("(prefers-reduced-motion: reduce)").matches;
