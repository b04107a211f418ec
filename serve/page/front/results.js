// The results of a query: pages of hits, what is probably not meant folded away, and "nothing here looks like that".

import { ask } from './client.js';
import { counted, known, number } from './words.js';
import { sentTerms, state, whereOf } from './state.js';

const PAGE = 60;

/** Whether a hit is what was asked for, as far as the model can tell. */
export const unlikely = hit => hit.likely === undefined ? hit.probability !== null && hit.probability < 0.5 && !hit.keyword : !hit.likely;

/** The source of the grid for a query; it begins to search when it is made. */
export class Results {
  constructor(shown, { changed, failed }) {
    Object.assign(this, { shown, changed, failed });
    this.hits = [[], []];      // likely, unlikely
    this.folded = true;
    this.next = null;
    this.nothing = false;
    this.notes = [];
    this.done = false;
    this.leaving = new AbortController();
    this.sections = [];
  }

  /** The first page. Raises Problem. */
  async begin() {
    const began = performance.now();
    await this.fetch();
    this.ms = performance.now() - began;
    // Where all is unlikely, that is said, and the nearest are shown on request only.
    if (!this.hits[0].length && this.hits[1].length) this.nothing = true;
    this.arrange();
  }

  async fetch() {
    const { shown } = this;
    const body = { terms: sentTerms(shown), k: Math.min(PAGE, known().max_hits || PAGE) };
    if (shown.kinds.length) body.want = shown.kinds;
    const where = whereOf(shown);
    if (where) body.where = where;
    if (this.next) body.cursor = this.next;
    const answer = await ask('v1/search', { method: 'POST', json: body, signal: this.leaving.signal });
    if (!this.done) this.notes = answer.notes;
    for (const hit of answer.data) this.hits[unlikely(hit) ? 1 : 0].push(hit);
    this.next = answer.next || null;
    this.nothing = this.nothing || Boolean(answer.nothing && !this.hits[0].length && this.hits[1].length);
    this.done = true;
  }

  arrange() {
    const [likely, rest] = this.hits, open = this.shown.nearest || !this.folded;
    const sections = [];
    if (likely.length) sections.push({ key: 'likely', hits: likely, title: '', label: 'Results', count: likely.length });
    if (rest.length) {
      const more = this.next ? '+' : '';
      sections.push({
        key: 'unlikely', hits: rest, title: this.nothing ? 'The nearest' : 'Probably not', note: number(rest.length) + more,
        count: rest.length, fold: !open, toggle: this.nothing ? null : () => { this.folded = !this.folded; this.arrange(); this.changed(true); },
      });
    }
    this.sections = this.nothing && !this.shown.nearest ? [] : sections;
  }

  item(section, place) {
    const shown = this.sections[section];
    return shown ? shown.hits[place] || null : null;
  }

  need(section, first, last) {
    const shown = this.sections[section];
    if (!shown || !this.next || this.coming || section !== this.sections.length - 1 || last < shown.count - 12) return;
    if (shown.fold) return;
    this.coming = this.fetch().then(() => { this.arrange(); this.changed(true); }, error => {
      if (error.name !== 'AbortError') { this.next = null; this.failed(error); }
    }).finally(() => { this.coming = null; });
  }

  async when(section, place) {
    return this.item(section, place);
  }

  /** What is said above the results. */
  status() {
    const count = this.hits[0].length + (this.shown.nearest || !this.nothing ? this.hits[1].length : 0);
    const notes = this.notes.map(note => note + '. ').join('');
    if (!this.hits[0].length && !this.hits[1].length) return notes + 'Nothing found.';
    if (this.nothing) return notes + 'Nothing here looks like that.';
    const time = this.ms < 1000 ? Math.ceil(this.ms) + ' ms' : (this.ms / 1000).toFixed(1) + ' s';
    const folded = this.hits[1].length && this.hits[0].length ? ', ' + number(this.hits[1].length) + (this.next ? '+' : '') + ' more probably not' : '';
    return notes + counted(this.hits[0].length || count, 'result', 'results') + (this.next && !this.hits[1].length ? ' so far' : '') + ', best first' + folded + ', in ' + time;
  }

  close() {
    this.leaving.abort();
  }
}
