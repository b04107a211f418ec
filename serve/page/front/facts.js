// What is known of an item, and what is near it: facts, moments of a recording, neighbours in time, place and content.

import { button, icon, make } from './dom.js';
import { ask, lazy, withParameters } from './client.js';
import { addItem } from './query.js';
import { go } from './state.js';
import { bytes, clock, dateWords, explained, folderOf, known, meaning, nameOf, previewOf, singular } from './words.js';
import { pictureOf } from './tile.js';


const NEAR = 12;
const OWN = new Set(['caption', 'latitude', 'longitude', 'altitude_m', 'width', 'height', 'orientation', 'taken', 'taken_from', 'text']);

/** Fills the panel beside a preview. */
export function showFacts(place, item, { signal, current }) {
  place.replaceChildren(
    actions(item),
    item.score === undefined ? '' : score(item),
    item.metadata.caption ? make('p', { className: 'said', dir: 'auto' }, String(item.metadata.caption)) : '',
    ...(item.lines || []).map(line => make('blockquote', { dir: 'auto' }, line.text)),
    facts(item),
  );
  if (item.related && item.related.length > 1) place.append(stretches(item));
  if (['video', 'audio', 'imu'].includes(item.modality)) strip(place, 'moments', () => lazy('./moments.js').then(module => module.moments(item, { signal })), current);
  strip(place, 'Similar', () => similar(item, signal), current, () => addItem(item, 1, true));
  strip(place, 'Near in time', () => near(item, 'time', signal), current);
  if (typeof item.metadata.latitude === 'number') strip(place, 'Near in place', () => near(item, 'place', signal), current);
}

function actions(item) {
  const found = [
    button('More like this', () => addItem(item, 1, true), 'secondary', 'alike'),
    button('Add', () => addItem(item, 1, false), 'secondary', 'plus'),
    button('Less like this', () => addItem(item, -0.5, false), 'secondary', 'minus'),
  ];
  if (item.favourite !== undefined) {
    const selection = () => lazy('./selection.js');
    found.push(
      button('Album', async () => (await selection()).addToAlbum([item]), 'secondary', 'album'),
      button(item.hidden ? 'Show again' : 'Hide', async () => { if (await (await selection()).mark([item], { hidden: !item.hidden })) go({ item: null }); }, 'secondary', 'hide'),
    );
  }
  if (!known().read_only && item.uploaded) found.push(button('Delete', async () => (await lazy('./selection.js')).remove([item]), 'secondary', 'bin'));
  return make('div', { className: 'acts' }, ...found);
}

function score(item) {
  const [style, words] = meaning(item);
  return make('p', { className: 'why' }, make('b', { className: 'score ' + style }, words), ' ', explained(item));
}

function facts(item) {
  const meta = item.metadata || {};
  const size = meta.width ? meta.width + ' × ' + meta.height + ' pixels' : '';
  const rows = [
    ['kind', singular(item.modality)],
    ['date', item.date ? dateWords(item.date) + (item.date_source ? ' (' + item.date_source + ')' : '') : ''],
    ['size', [size, item.size_bytes ? bytes(item.size_bytes) : ''].filter(Boolean).join(', ')],
    ['length', item.duration_s ? clock(item.duration_s) : ''],
    ['part', item.at || ''],
    ['place', typeof meta.latitude === 'number' ? meta.latitude.toFixed(5) + ', ' + meta.longitude.toFixed(5) : ''],
    ...Object.entries(meta).filter(([key]) => !OWN.has(key)).map(([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)]),
    ['notes', (item.notes || []).join('; ')],
    ['the same content', (item.also || []).join('\n')],
  ].filter(([, value]) => value);
  const path = make('dd', { className: 'path' }, make('code', { dir: 'auto' }, item.path), copyButton(item.path));
  const folder = folderOf(item);
  const linked = [
    folder ? make('button', { type: 'button', className: 'chip', title: folder }, 'This folder') : null,
    ...(item.albums || []).map(name => make('button', { type: 'button', className: 'chip' }, icon('album'), name)),
    ...(item.tags || []).map(name => make('button', { type: 'button', className: 'chip' }, '# ' + name)),
  ].filter(Boolean);
  const goals = [folder && { where: "path like '" + folder.replaceAll("'", "''").slice(0, 250) + "/%'" }, ...(item.albums || []).map(name => ({ album: [name] })), ...(item.tags || []).map(name => ({ tag: [name] }))].filter(Boolean);
  linked.forEach((made, number) => made.addEventListener('click', () => go({ view: 'library', words: '', terms: [], item: null, ...goals[number] })));
  return make('div', {}, make('dl', { className: 'told' }, ...rows.flatMap(([key, value]) => [make('dt', {}, key), make('dd', { dir: 'auto' }, value)]), make('dt', {}, 'path'), path), make('div', { className: 'acts' }, ...linked));
}

function copyButton(text) {
  const made = button('Copy', async () => {
    await navigator.clipboard?.writeText(text).catch(() => null);
    made.textContent = 'Copied';
  }, 'quiet-button');
  return made;
}

function stretches(item) {
  const parts = item.related.slice(0, 60).map(part => {
    const label = part.start_s === null ? part.at || singular(part.modality) : clock(part.start_s) + (part.modality === item.modality ? '' : ' ' + singular(part.modality));
    const made = button(label, () => go({ item: part.id }, { replace: true }), 'chip');
    made.toggleAttribute('aria-current', part.id === item.id);
    return made;
  });
  return make('section', {}, make('h3', {}, 'Stretches'), make('div', { className: 'acts' }, ...parts));
}

/** A row of neighbours that appears when it is there, and not at all where there are none. */
function strip(place, title, load, current, more = null) {
  const section = make('section', { hidden: true });
  place.append(section);
  load().then(found => {
    if (!current() || !found || Array.isArray(found) && !found.length) return;
    if (!Array.isArray(found)) section.append(found);
    else section.append(make('h3', {}, title, more ? button('all', more, 'quiet-button') : null), thumbnails(found));
    section.hidden = false;
  }, () => { /* what is near is no reason to say that something failed */ });
}

function thumbnails(items) {
  return make('div', { className: 'row' }, ...items.map(item => {
    const shown = previewOf(item.modality) === 'text' ? icon('text') : make('img', { src: pictureOf(item), alt: '', loading: 'lazy' });
    const made = make('button', { type: 'button', title: nameOf(item), 'aria-label': nameOf(item) }, shown);
    made.addEventListener('click', () => go({ item: item.id }));
    return made;
  }));
}

async function near(item, by, signal) {
  return (await ask(withParameters('v1/items/' + item.id + '/near', { by, limit: NEAR }), { signal })).data;
}

async function similar(item, signal) {
  const answer = await ask('v1/search', { method: 'POST', json: { terms: [{ item: item.id }], k: NEAR }, signal });
  return answer.data;
}

