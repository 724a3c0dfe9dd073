// Makes a form from the description of a message. Each control has an element, `get`, which
// returns the JSON value or undefined if nothing is set, and `set`. Problems are thrown by `get`
// with the control that has them.

import { h, prose } from "./dom.js";

let lastId = 0;
const newId = () => `f${++lastId}`;

/** A value that is not valid. */
export class Invalid extends Error {
  constructor(control, message) {
    super(message);
    this.control = control;
  }
}

const WHOLE = /int|fixed/;
const WRAPPERS = { BoolValue: "bool", BytesValue: "bytes", DoubleValue: "double", FloatValue: "float", Int32Value: "int32", Int64Value: "int64", StringValue: "string", UInt32Value: "uint32", UInt64Value: "uint64" };
const TEXTS = { Duration: "30s", Timestamp: "2026-11-30T12:00:00Z", FieldMask: "name,tags" };
const JSONS = ["Any", "Struct", "Value", "ListValue"];

/** Returns the control of a message. `types` has the descriptions of all messages and enums. */
export function messageControl(name, types) {
  const fields = types.messages[name] ?? [];
  const controls = [];
  const parts = [];
  const oneofs = new Map();
  for (const field of fields) {
    if (!field.oneof) {
      const control = fieldControl(field, types);
      controls.push([field, control]);
      parts.push(control.element);
    } else if (!oneofs.has(field.oneof)) {
      const members = fields.filter((one) => one.oneof === field.oneof);
      const control = oneofControl(field.oneof, members, types);
      oneofs.set(field.oneof, control);
      parts.push(control.element);
    }
  }
  const element = h("div", { class: "fields" }, parts.length > 0 ? parts : h("p", { class: "muted small" }, "It has no fields."));
  return {
    element,
    get() {
      const value = {};
      for (const [field, control] of controls) {
        const one = control.get();
        if (one !== undefined) value[field.name] = one;
      }
      for (const control of oneofs.values()) Object.assign(value, control.get());
      return value;
    },
    set(value) {
      for (const [field, control] of controls) control.set(value?.[field.name] ?? value?.[field.proto]);
      for (const control of oneofs.values()) control.set(value ?? {});
    },
  };
}

const firstLine = (comment) => comment.split(/\n\n/)[0].replaceAll("\n", " ");

function typeName(type) {
  const name = typeof type === "string" ? type : (type.message ?? type.enum);
  return name.split(".").pop();
}

function label(field) {
  const list = { repeated: "list of ", map: `map of ${field.key} to ` }[field.label] ?? "";
  return [
    h("span", { class: "field-name" }, field.proto), field.required ? h("span", { class: "required", title: "required" }, " *") : "",
    " ", h("span", { class: "muted small" }, `${list}${typeName(field.type)}${field.deprecated ? ", deprecated" : ""}`),
  ];
}

function describe(field, id) {
  return field.comment ? h("p", { class: "muted small comment", id }, prose(firstLine(field.comment))) : null;
}

/** Returns the control of a field with its label. `make` makes that of its value. */
function fieldControl(field, types, make = valueControl) {
  if (field.label === "map") return listControl(field, types, mapEntry);
  if (field.label === "repeated") return listControl(field, types, listEntry);
  const control = make(field.type, types, field);
  const commentId = newId();
  if (!control.input) {
    const element = h("fieldset", {}, h("legend", {}, label(field)), describe(field, commentId), control.element);
    return { ...control, element };
  }
  const id = newId();
  control.input.id = id;
  if (field.comment) control.input.setAttribute("aria-describedby", commentId);
  if (field.required) control.input.setAttribute("aria-required", "true");
  const element = h("div", { class: "field" }, h("label", { for: id }, label(field)), control.element, describe(field, commentId));
  return { ...control, element };
}

/** Returns the control of one value. `field` is that of a field of its own, which may be unset. */
function valueControl(type, types, field = {}) {
  if (type.enum) return enumControl(types.enums[type.enum], type.enum, field);
  if (type.message) {
    const known = type.message.startsWith("google.protobuf.") ? type.message.slice(16) : "";
    if (known in WRAPPERS) return scalarControl(WRAPPERS[known], { ...field, label: "optional" });
    if (known in TEXTS) return textControl(TEXTS[known]);
    if (JSONS.includes(known)) return jsonControl(known);
    return nestedControl(type.message, types);
  }
  return scalarControl(type, field);
}

function scalarControl(type, field) {
  if (type === "bool") return boolControl(field);
  if (type === "bytes") return bytesControl();
  if (type === "string") return stringControl();
  const isWhole = WHOLE.test(type);
  const input = h("input", { type: "text", inputmode: isWhole ? "numeric" : "decimal", autocomplete: "off", spellcheck: "false" });
  const pattern = isWhole ? /^-?[0-9]+$/ : /^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/;
  return {
    element: input,
    input,
    get() {
      const value = input.value.trim();
      if (value === "") return undefined;
      if (!isWhole && ["NaN", "Infinity", "-Infinity"].includes(value)) return value;
      if (!pattern.test(value)) throw new Invalid(input, `${value} is no ${type}`);
      // JavaScript would round larger ones.
      return type.includes("64") ? value : Number(value);
    },
    set: (value) => { input.value = value ?? ""; },
  };
}

function stringControl() {
  const input = h("textarea", { rows: "1", spellcheck: "false", autocomplete: "off" });
  return { element: input, input, get: () => (input.value === "" ? undefined : input.value), set: (value) => { input.value = value ?? ""; } };
}

function textControl(example) {
  const input = h("input", { type: "text", placeholder: example, autocomplete: "off", spellcheck: "false" });
  return { element: input, input, get: () => input.value.trim() || undefined, set: (value) => { input.value = value ?? ""; } };
}

function boolControl(field) {
  if (field.label !== "optional") {
    const input = h("input", { type: "checkbox" });
    return { element: input, input, get: () => (input.checked ? true : undefined), set: (value) => { input.checked = value === true; } };
  }
  const input = h("select", {}, ["", "true", "false"].map((value) => h("option", { value }, value || "not set")));
  return {
    element: input,
    input,
    get: () => (input.value === "" ? undefined : input.value === "true"),
    set: (value) => { input.value = value === undefined || value === null ? "" : String(value); },
  };
}

function bytesControl() {
  const input = h("textarea", { rows: "1", placeholder: "base64", spellcheck: "false", autocomplete: "off" });
  const file = h("input", {
    type: "file",
    "aria-label": "Read a file",
    onchange: async () => {
      if (!file.files[0]) return;
      const bytes = new Uint8Array(await file.files[0].arrayBuffer());
      let text = "";
      // In parts: the arguments of a call are limited.
      for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
      input.value = btoa(text);
      input.dispatchEvent(new Event("input", { bubbles: true }));
    },
  });
  return {
    element: h("div", { class: "bytes" }, input, file),
    input,
    get() {
      const value = input.value.replace(/\s/g, "");
      if (!/^[A-Za-z0-9+/_-]*={0,2}$/.test(value)) throw new Invalid(input, "this is no base64");
      return value || undefined;
    },
    set: (value) => { input.value = value ?? ""; },
  };
}

function jsonControl(kind) {
  const example = { Struct: '{"name": "value"}', ListValue: "[1, 2]", Value: '"text"', Any: '{"@type": "type.googleapis.com/…"}' }[kind];
  const input = h("textarea", { rows: "3", class: "code", placeholder: example, spellcheck: "false", autocomplete: "off" });
  return {
    element: input,
    input,
    get() {
      if (input.value.trim() === "") return undefined;
      try {
        return JSON.parse(input.value);
      } catch (error) {
        throw new Invalid(input, `this is no JSON: ${error.message}`);
      }
    },
    set: (value) => { input.value = value === undefined ? "" : JSON.stringify(value, null, 2); },
  };
}

function enumControl(values, type, field) {
  const options = (values ?? []).map((value) => h("option", { value: value.name, title: firstLine(value.comment) }, value.name));
  const input = h("select", {}, h("option", { value: "" }, "not set"), options);
  return {
    element: input,
    input,
    get: () => input.value || undefined,
    set: (value) => {
      const known = (values ?? []).find((one) => one.name === value || one.number === value);
      input.value = known?.name ?? "";
    },
  };
}

/** A message within another one: made when it is added, since messages may contain themselves. */
function nestedControl(name, types) {
  let inner = null;
  const place = h("div");
  const button = h("button", { type: "button", onclick: () => { inner ? remove() : add(); changed(); } });
  const element = h("div", {}, button, place);
  const changed = () => element.dispatchEvent(new Event("input", { bubbles: true }));
  function add() {
    inner = messageControl(name, types);
    place.replaceChildren(inner.element);
    show();
  }
  function remove() {
    inner = null;
    place.replaceChildren();
    show();
  }
  function show() {
    button.textContent = inner ? "Remove" : `Add ${typeName({ message: name })}`;
  }
  show();
  return {
    element,
    nested: name,
    get: () => inner?.get(),
    set(value) {
      if (value === undefined || value === null) return remove();
      add();
      inner.set(value);
    },
  };
}

/** Returns the control of a value that is set because it is there: an entry, or a chosen field. */
function presentControl(type, types, field) {
  const control = valueControl(type, types, field);
  return control.nested ? messageControl(control.nested, types) : control;
}

function listEntry(field, types) {
  const control = presentControl(field.type, types);
  control.input?.setAttribute("aria-label", field.proto);
  return { element: control.element, get: () => control.get() ?? zero(field.type), set: (value) => control.set(value) };
}

/** Returns what an empty control means within a list, where nothing can be unset. */
function zero(type) {
  if (type.enum) return 0;
  if (type.message) return {};
  if (type === "bool") return false;
  return type === "string" || type === "bytes" ? "" : 0;
}

function mapEntry(field, types) {
  const key = field.key === "bool" ? boolControl({ label: "optional" }) : scalarControl(field.key, {});
  const value = presentControl(field.type, types);
  key.input.setAttribute("aria-label", `Key of ${field.proto}`);
  value.input?.setAttribute("aria-label", `Value of ${field.proto}`);
  return {
    element: h("div", { class: "entry" }, key.element, value.element),
    get: () => [String(key.get() ?? (field.key === "string" ? "" : zero(field.key))), value.get() ?? zero(field.type)],
    set([name, one]) {
      key.set(field.key === "bool" ? name === "true" : name);
      value.set(one);
    },
  };
}

/** A repeated field or a map. */
function listControl(field, types, makeEntry) {
  let entries = [];
  const list = h("ol", { class: "entries" });
  const add = h("button", { type: "button", onclick: () => { append().focus(); changed(); } }, "Add");
  const commentId = newId();
  const element = h("fieldset", {}, h("legend", {}, label(field)), describe(field, commentId), list, add);
  const changed = () => element.dispatchEvent(new Event("input", { bubbles: true }));
  function append(value) {
    const entry = makeEntry(field, types);
    if (value !== undefined) entry.set(value);
    const remove = h("button", {
      type: "button",
      class: "remove",
      "aria-label": `Remove this entry of ${field.proto}`,
      onclick: () => {
        entries = entries.filter((one) => one !== entry);
        item.remove();
        add.focus();
        changed();
      },
    }, "×");
    const item = h("li", {}, entry.element, remove);
    entries.push(entry);
    list.append(item);
    return item.querySelector("input, textarea, select, button");
  }
  return {
    element,
    get() {
      if (entries.length === 0) return undefined;
      const values = entries.map((entry) => entry.get());
      return field.label === "map" ? Object.fromEntries(values) : values;
    },
    set(value) {
      entries = [];
      list.replaceChildren();
      const values = field.label === "map" ? Object.entries(value ?? {}) : (value ?? []);
      for (const one of values) append(one);
    },
  };
}

/** At most one of several fields. */
function oneofControl(name, members, types) {
  const controls = new Map();
  const select = h("select", { "aria-label": `Which of ${name}`, onchange: () => choose(select.value) },
    h("option", { value: "" }, "not set"), members.map((member) => h("option", { value: member.name }, member.proto)));
  const place = h("div");
  const element = h("fieldset", {}, h("legend", {}, h("span", { class: "field-name" }, name), " ", h("span", { class: "muted small" }, "one of")), select, place);
  let chosen = null;
  function choose(value) {
    const member = members.find((one) => one.name === value);
    select.value = member?.name ?? "";
    chosen = null;
    place.replaceChildren();
    if (!member) return;
    if (!controls.has(member.name)) controls.set(member.name, fieldControl({ ...member, label: "optional" }, types, presentControl));
    const control = controls.get(member.name);
    chosen = { member, control };
    place.replaceChildren(control.element);
  }
  return {
    element,
    get() {
      if (!chosen) return {};
      const { member, control } = chosen;
      return { [member.name]: control.get() ?? zero(member.type) };
    },
    set(value) {
      const member = members.find((one) => value[one.name] !== undefined || value[one.proto] !== undefined);
      choose(member?.name);
      if (chosen) chosen.control.set(value[member.name] ?? value[member.proto]);
    },
  };
}
