// What is shown is what the address says: every search, filter and item is behind its `#`, which browsers do not send.

import { nameOf } from './words.js';

const VIEWS = ['library', 'map', 'albums', 'duplicates', 'add', 'about'];
const LISTS = ['folder', 'camera', 'place', 'album', 'tag', 'id'];
const SORTS = ['date', 'added', 'name', 'size', 'path'];

/** A state that asks for nothing: the whole library, newest first. */
export function empty() {
  const lists = Object.fromEntries(LISTS.map(name => [name, []]));
  return { view: 'library', words: '', terms: [], kinds: [], ...lists, from: '', to: '', favourites: false, hidden: false, where: '', sort: 'date', order: 'desc', item: null, nearest: false };
}

let current = empty();
const listeners = [];
let held = new Map();  // number -> term, for vectors that are too long for an address

export const state = () => current;
export const onChange = listener => listeners.push(listener);
/** Whether a state asks for something, so that results are shown and not the whole library. */
export const asks = (shown = current) => Boolean(shown.words || shown.terms.some(term => term.weight !== 0));

/** Goes to the current state with some changes. `replace`: without a step for the back button. */
export function go(changes, { replace = false } = {}) {
  const address = '#' + write({ ...current, ...changes });
  if (address === '#' + write(current) && location.hash.replace(/^#?/, '#') === address) { follow(); return; }
  if (replace) history.replaceState(null, '', locationWith(address));
  else history.pushState(null, '', locationWith(address));
  follow();
}

const locationWith = hash => location.pathname + location.search + (hash === '#' ? '' : hash);

/** Reads the address and tells everybody; also where nothing changed, so that one can ask again. */
export function follow() {
  const before = current;
  current = read(location.hash);
  for (const listener of listeners) listener(current, before);
}

addEventListener('popstate', follow);

/** The address of a state with changes, for links. */
export const addressOf = changes => '#' + write({ ...empty(), ...changes });

function write(shown) {
  const given = new URLSearchParams();
  const plain = empty();
  if (shown.view !== 'library') given.set('view', shown.view);
  if (shown.words) given.set('q', shown.words);
  for (const term of shown.terms) given.append('t', written(term));
  if (shown.kinds.length) given.set('kind', shown.kinds.join(','));
  for (const name of LISTS) for (const value of shown[name]) given.append(name, value);
  for (const name of ['from', 'to', 'where', 'sort', 'order']) if (shown[name] !== plain[name]) given.set(name, shown[name]);
  for (const name of ['favourites', 'hidden', 'nearest']) if (shown[name]) given.set(name, '1');
  if (shown.item) given.set('item', shown.item);
  return given.toString();
}

function read(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ''));
  const found = empty();
  if (VIEWS.includes(given.get('view'))) found.view = given.get('view');
  found.words = (given.get('q') || '').slice(0, 2000);
  found.terms = given.getAll('t').map(readTerm).filter(Boolean);
  found.kinds = (given.get('kind') || '').split(',').filter(Boolean);
  for (const name of LISTS) found[name] = given.getAll(name);
  for (const name of ['from', 'to']) if (/^\d{4}(-\d\d){0,2}$/.test(given.get(name) || '')) found[name] = given.get(name);
  found.where = given.get('where') || '';
  if (SORTS.includes(given.get('sort'))) found.sort = given.get('sort');
  if (given.get('order') === 'asc') found.order = 'asc';
  for (const name of ['favourites', 'hidden', 'nearest']) found[name] = given.get(name) === '1';
  found.item = Number(given.get('item')) || null;
  return found;
}

// A term in the address: what it is, its weight, its kind, its content and its name. A vector has two bytes a number,
// 1,024 characters of the default model, exact to a ten-thousandth.
function written(term) {
  if (term.words !== undefined) return ['w', term.weight, term.words].join('~');
  if (term.item !== undefined) return ['i', term.weight, term.item, term.modality, term.name].join('~');
  return ['v', term.weight, term.modality, term.packed, term.name].join('~');
}

function readTerm(text) {
  const [what, weightText, ...rest] = text.split('~');
  const weight = Math.max(-1, Math.min(1, Number(weightText)));
  if (!Number.isFinite(weight)) return null;
  if (what === 'w') return { words: rest.join('~'), weight };
  if (what === 'i' && Number(rest[0])) return { item: Number(rest[0]), modality: rest[1], name: rest.slice(2).join('~'), weight };
  if (what !== 'v') return null;
  const [modality, packed, ...name] = rest;
  if (held.has(packed)) return { ...held.get(packed), weight };
  try {
    return { vector: unpacked(packed), packed, modality, name: name.join('~'), weight };
  } catch {
    return null;
  }
}

/** A vector of the server, in base64 of float32, and what it is of -> a term. */
export function vectorTerm(vector, modality, name, more = {}) {
  const term = { vector, packed: packed(vector), modality, name, weight: 1, ...more };
  held.set(term.packed, term);
  return term;
}

export const itemTerm = (item, weight = 1) => ({ item: item.id, modality: item.modality, name: nameOf(item), weight });

const toBase64 = bytes => btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(''));
const fromBase64 = text => Uint8Array.from(atob(text), character => character.charCodeAt(0));

function packed(vector) {
  const numbers = new Float32Array(fromBase64(vector).buffer);
  const largest = Math.max(1e-9, ...numbers.map(Math.abs));
  const small = Int16Array.from(numbers, number => Math.round(number / largest * 32767));
  return toBase64(new Uint8Array(small.buffer)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

function unpacked(text) {
  const small = new Int16Array(fromBase64(text.replaceAll('-', '+').replaceAll('_', '/')).buffer);
  if (!small.length) throw new RangeError('a vector without numbers');
  const norm = Math.sqrt(small.reduce((sum, number) => sum + number * number, 0)) || 1;
  return toBase64(new Uint8Array(Float32Array.from(small, number => number / norm).buffer));
}

/** The terms of a state as `/v1/search` takes them. */
export function sentTerms(shown = current) {
  const terms = shown.words ? [{ text: shown.words, weight: 1 }] : [];
  for (const term of shown.terms) {
    if (term.weight === 0) continue;
    if (term.words !== undefined) terms.push({ text: term.words, weight: term.weight });
    else if (term.item !== undefined) terms.push({ item: term.item, weight: term.weight });
    else terms.push({ vector: term.vector, weight: term.weight, ...(term.modality ? { vector_of: term.modality } : {}) });
  }
  return terms;
}

const quoted = value => "'" + String(value).replaceAll("'", "''") + "'";
const oneOf = (name, values) => values.length === 1 ? name + ' = ' + quoted(values[0]) : name + ' in (' + values.map(quoted).join(', ') + ')';

/** A folder, and all that are inside it; a character that `like` takes for another meaning stands for any. */
const inFolder = folder => 'folder = ' + quoted(folder) + ' or folder like ' + quoted(folder.replace(/[%_]/g, '_') + '/%');

/** The filter of a state as an expression of `where`; `without` leaves out one of its parts. */
export function whereOf(shown = current, { kinds = false } = {}) {
  const parts = [];
  if (kinds && shown.kinds.length) parts.push(oneOf('kind', shown.kinds));
  if (shown.from || shown.to) parts.push('date between ' + quoted(shown.from || '0001') + ' and ' + quoted(shown.to || '9999'));
  if (shown.folder.length) parts.push('(' + shown.folder.map(inFolder).join(' or ') + ')');
  if (shown.camera.length) parts.push(oneOf('camera', shown.camera));
  if (shown.place.length) parts.push(oneOf('place', shown.place));
  if (shown.album.length) parts.push(oneOf('album', shown.album));
  if (shown.tag.length) parts.push(oneOf('tag', shown.tag));
  if (shown.id.length) parts.push('id in (' + shown.id.map(Number).filter(Boolean).join(', ') + ')');
  if (shown.favourites) parts.push('favourite = true');
  if (shown.where.trim()) parts.push(parts.length ? '(' + shown.where.trim() + ')' : shown.where.trim());
  return parts.join(' and ');
}

/** Whether a state filters anything. */
export const filters = (shown = current) => Boolean(whereOf(shown, { kinds: true }));
