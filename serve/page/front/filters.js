// The filters: dates, folders, cameras, places, albums, tags and marks, each with how many items there are; and the
// expression that they make, for those who want it.

import { button, find, make } from './dom.js';
import { clearFilters } from './app.js';
import { facets } from './timeline.js';
import { go, state, whereOf } from './state.js';
import { known, number } from './words.js';

const LISTS = [['folder', 'Folders', 'folders'], ['camera', 'Cameras', 'cameras'], ['place', 'Places', 'places'], ['album', 'Albums', 'albums'], ['tag', 'Tags', 'tags']];
const SHOWN = 200;

let told = null;       // the facets of everything, which lists do not shrink by themselves
let toldFor = null;
let unfolded = false;  // whether the expression is shown

/** Fills the panel of filters for a state. */
export async function showFilters(shown) {
  const place = find('.filters');
  if (!place.children.length) place.append(make('p', { className: 'quiet' }, 'Counting…'));
  const base = JSON.stringify([shown.kinds, shown.hidden, known().files]);
  if (toldFor !== base) {
    try {
      told = await facets({ ...state(), from: '', to: '', folder: [], camera: [], place: [], album: [], tag: [], id: [], favourites: false, where: '' });
      toldFor = base;
    } catch (error) {
      if (error.name !== 'AbortError') place.replaceChildren(make('p', { className: 'quiet' }, error.title || String(error)));
      return;
    }
  }
  const at = document.activeElement?.dataset?.key;
  place.replaceChildren(
    dates(shown),
    ...LISTS.map(([name, title, facet]) => list(shown, name, title, told[facet])).filter(Boolean),
    marks(shown),
    expression(shown),
  );
  if (at) find('[data-key="' + CSS.escape(at) + '"]', place)?.focus();
}

const group = (title, ...content) => make('fieldset', {}, make('legend', {}, title), ...content);
const set = changes => go({ ...changes, nearest: false });

function dates(shown) {
  const months = told.months.map(({ month }) => month).filter(Boolean);
  const bounds = months.length ? { min: months[months.length - 1] + '-01', max: months[0] + '-31' } : {};
  const field = (name, label) => {
    const input = make('input', { type: 'date', value: whole(shown[name], name), 'aria-label': label, 'data-key': name, min: bounds.min });
    input.addEventListener('change', () => set({ [name]: input.value }));
    return make('label', {}, make('span', {}, label), input);
  };
  const years = [...new Set(months.map(month => month.slice(0, 4)))].slice(0, 12);
  const quick = years.map(year => {
    const on = shown.from === year && shown.to === year;
    const made = button(year, () => set(on ? { from: '', to: '' } : { from: year, to: year }), 'chip');
    made.setAttribute('aria-pressed', String(on));
    made.dataset.key = 'year' + year;
    return made;
  });
  return group('Dates', make('div', { className: 'pair' }, field('from', 'From'), field('to', 'To')), make('div', { className: 'acts' }, ...quick));
}

/** `2024` or `2024-05` -> the day that a date picker shows. */
function whole(date, name) {
  if (!date || date.length === 10) return date;
  if (date.length === 4) return date + (name === 'from' ? '-01-01' : '-12-31');
  return date + (name === 'from' ? '-01' : '-' + new Date(Number(date.slice(0, 4)), Number(date.slice(5)), 0).getDate());
}

function list(shown, name, title, counts) {
  const values = counts.map(one => [one.path ?? one.name, one.count]).filter(([value]) => value);
  for (const chosen of shown[name]) if (!values.some(([value]) => value === chosen)) values.unshift([chosen, 0]);
  if (!values.length) return null;
  const rows = make('div', { className: 'values', tabIndex: -1 });
  const fill = words => rows.replaceChildren(...values.filter(([value]) => value.toLowerCase().includes(words)).slice(0, SHOWN).map(([value, count]) => {
    const box = make('input', { type: 'checkbox', checked: shown[name].includes(value), 'data-key': name + value });
    box.addEventListener('change', () => set({ [name]: box.checked ? [...state()[name], value] : state()[name].filter(other => other !== value) }));
    return make('label', { title: value }, box, make('span', { dir: 'auto' }, value), make('small', {}, number(count)));
  }));
  fill('');
  const search = values.length > 8 ? make('input', { type: 'search', placeholder: 'Find', 'aria-label': 'Find in ' + title, 'data-key': 'find' + name }) : null;
  search?.addEventListener('input', () => fill(search.value.trim().toLowerCase()));
  return group(title, ...[search, rows].filter(Boolean));
}

function marks(shown) {
  const box = (name, label, count) => {
    const input = make('input', { type: 'checkbox', checked: shown[name], 'data-key': name });
    input.addEventListener('change', () => set({ [name]: input.checked }));
    return make('label', {}, input, make('span', {}, label), make('small', {}, number(count)));
  };
  return group('Marks', make('div', { className: 'values' }, box('favourites', 'Favourites only', told.favourites), box('hidden', 'Hidden ones too', told.hidden)));
}

function expression(shown) {
  const made = whereOf({ ...shown, where: '' }, { kinds: true });
  const field = make('input', { type: 'text', className: 'where', spellcheck: false, maxLength: 10000, value: shown.where, placeholder: known().where_examples?.[0], 'aria-label': 'Only where', 'data-key': 'where' });
  const apply = () => set({ where: field.value.trim() });
  field.addEventListener('change', apply);
  const examples = (known().where_examples || []).map(text => {
    const one = make('button', { type: 'button' }, make('code', {}, text));
    one.addEventListener('click', () => set({ where: text }));
    return make('li', {}, one);
  });
  const help = make('details', { className: 'fold' }, make('summary', {}, 'As an expression'),
    make('p', {}, 'The filters above make: ', make('code', {}, made || 'nothing')),
    make('label', {}, make('span', {}, 'And only where'), field),
    make('p', {}, 'Compare ', ...(known().columns || []).flatMap(name => [make('code', {}, name), ' ']), 'or a key of the metadata with = != < <= > >= like in between is null; join with and, or, not, parentheses.'),
    make('ul', { className: 'examples' }, ...examples));
  help.open = unfolded || Boolean(shown.where);
  help.addEventListener('toggle', () => { unfolded = help.open; });
  return make('div', { className: 'wide' }, help, make('div', { className: 'acts' }, button('Clear the filters', clearFilters, 'secondary')));
}

