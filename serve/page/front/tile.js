// One item as a tile: its picture, plot or words, what kind it is, and what can be done with it.

import { make, icon } from './dom.js';
import { health } from './client.js';
import { clock, dateWords, explained, meaning, nameOf, pictured, plural, previewOf, singular, span } from './words.js';

const QUOTES = new Map();
const MOST_QUOTES = 400;

/** The address of the picture that shows an item. */
export function pictureOf(item) {
  return pictured(item.modality) ? item.thumbnail : figureOf(item);
}

export const figureOf = item => 'figures/' + item.id;

/** The children of an item's tile; `picked(id)` says whether it is selected. */
export function tileOf(item, picked) {
  const name = nameOf(item), [style, words] = item.score === undefined ? ['', ''] : meaning(item);
  const label = [name, singular(item.modality), dateWords(item.date).split(',')[0], span(item), words].filter(Boolean).join(', ');
  const open = make('button', { type: 'button', className: 'open', 'data-act': 'open', 'aria-label': label }, shown(item));
  const box = make('input', { type: 'checkbox', checked: picked(item.id), tabIndex: -1, 'aria-label': 'Select ' + name, 'data-act': 'pick' });
  return [
    open,
    make('label', { className: 'pick' }, box),
    item.modality === 'image' ? null : badge(item),
    item.favourite ? make('span', { className: 'loved', title: 'Favourite' }, icon('heart')) : null,
    make('div', { className: 'caption', title: item.score === undefined ? name : explained(item) },
      make('span', { className: 'name', dir: 'auto' }, name),
      words ? make('span', { className: 'score ' + style }, words) : null,
      item.lines && item.lines.length ? make('span', { className: 'line', dir: 'auto' }, '“' + item.lines[0].text + '”') : null),
    make('div', { className: 'quick' },
      quick('more', 'alike', 'More like ' + name + ' (m)'),
      quick('add', 'plus', 'Add ' + name + ' to the query (a)'),
      quick('less', 'minus', 'Less like ' + name + ' (l)')),
  ].filter(Boolean);
}

function quick(act, name, label) {
  return make('button', { type: 'button', 'data-act': act, 'aria-label': label, title: label, tabIndex: -1 }, icon(name));
}

function badge(item) {
  const seconds = item.duration_s || (item.start_s === null ? null : item.end_s - item.start_s);
  const time = item.score !== undefined && item.start_s !== null ? clock(item.start_s) : seconds ? clock(seconds) : '';
  const parts = item.segments > 1 && !['video', 'audio'].includes(item.modality) && !time ? item.segments : '';
  return make('span', { className: 'badge', title: plural(item.modality) }, icon(item.modality), time + parts);
}

function shown(item) {
  if (previewOf(item.modality) === 'text') return quote(item);
  const image = make('img', { alt: '', decoding: 'async', draggable: false, 'data-src': pictureOf(item), width: 256, height: 256 });
  image.addEventListener('error', () => {
    if (!image.getAttribute('src')) return;
    image.replaceWith(make('span', { className: 'gone' }, icon(item.modality), make('span', { dir: 'auto' }, nameOf(item))));
    health.doubt();
  });
  image.addEventListener('load', () => image.classList.add('there'));
  return image;
}

/** The beginning of a text, which is fetched when its tile is made and kept. */
function quote(item) {
  const caption = item.metadata && typeof item.metadata.caption === 'string' ? item.metadata.caption : '';
  const place = make('span', { className: 'quote', dir: 'auto' }, QUOTES.get(item.id) || caption);
  if (!QUOTES.has(item.id)) {
    fetch(figureOf(item)).then(answer => answer.ok ? answer.text() : nameOf(item)).then(text => {
      QUOTES.set(item.id, text);
      if (QUOTES.size > MOST_QUOTES) QUOTES.delete(QUOTES.keys().next().value);
      place.textContent = text;
    }).catch(() => { place.textContent = nameOf(item); });
  }
  return place;
}
