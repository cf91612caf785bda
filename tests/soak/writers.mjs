// What others write meanwhile, past the app: rows change, come and go, and their number stays about the same.
import {setTimeout as sleep} from 'node:timers/promises';
import {STATUSES} from '../../demo/shared/schema.mjs';
import {Random} from './random.mjs';

const WRITERS = 2;
const PAUSE_MS = 60;
/** Rows that a writer adds, each in the place of one that it added before. */
const PLACES = 40;

export class Writers {
  #sql;
  #issues;
  #isOver = false;
  #done;
  commits = 0;

  constructor(sql, issues, seed) {
    this.#sql = sql;
    this.#issues = issues;
    this.#done = Promise.all(Array.from({length: WRITERS}, (_, i) => this.#write(i, new Random(seed + 100 + i))));
    // What goes wrong is told at the end; a day that is stopped early does not get there.
    this.#done.catch(() => {});
  }

  async #write(number, random) {
    for (let count = 0; !this.#isOver; count++) {
      const place = count % PLACES;
      await this.#sql.begin(tx => this.#transaction(tx, random, `w${number}-${place}`, number * 1_000 + place));
      this.commits++;
      await sleep(random.below(2 * PAUSE_MS));
    }
  }

  async #transaction(tx, random, name, num) {
    const id = random.pick(this.#issues);
    switch (random.below(5)) {
      case 0:
        return tx`
          update issues set status = ${random.pick(STATUSES)}::issue_status, updated_at = now() where id = ${id}`;
      case 1:
        return tx`
          update issues set priority = ${random.below(5)}, title = ${`Written ${random.below(1e6)}`} where id = ${id}`;
      case 2:
        await tx`delete from comments where id = ${name}`;
        return tx`insert into comments (id, issue_id, author_id, body) values (${name}, ${id}, 'u5', 'Written')`;
      case 3:
        await tx`delete from issues where id = ${name}`;
        return tx`insert into issues (id, project_id, num, title, creator_id) values
          (${name}, ${`p${1 + random.below(6)}`}, ${500_000 + num}, 'New', 'u5')`;
      default:
        return tx`update issues set assignee_id = ${`u${random.below(20)}`} where id = ${id}`;
    }
  }

  async end() {
    this.#isOver = true;
    await this.#done;
  }
}
