// The demo page, as somebody uses it.
import {eventually} from './waiting.mjs';

export class IssuesPage {
  constructor(page) {
    this.page = page;
    this.errors = [];
    page.on('pageerror', e => this.errors.push(e.message));
    this.list = page.getByRole('list', {name: 'Issue list'});
    this.detail = page.getByRole('complementary', {name: 'Issue'});
    this.title = this.detail.getByLabel('Title');
    this.connection = page.getByRole('status', {name: 'Connection'});
  }

  static async open(context, app, hash = '') {
    const page = await context.newPage();
    const issues = new IssuesPage(page);
    await page.goto(`${app.stack.page.url}/${hash}`);
    await issues.loaded();
    return issues;
  }

  /** Until the server has answered the list. */
  async loaded(ms = 20_000) {
    await this.page.locator('.rows[data-result=complete]').waitFor({timeout: ms});
  }

  row(issueID) {
    return this.list.locator(`a[data-issue="${issueID}"]`);
  }

  async rows() {
    return this.list.locator('a[data-issue]').evaluateAll(all => all.map(a => a.dataset.issue));
  }

  async says(state, ms = 20_000) {
    await this.connection.filter({hasText: state}).waitFor({timeout: ms});
  }

  async has(issueID, text, ms = 15_000) {
    await eventually(`"${text}" in the row of ${issueID}`, async () => (await this.row(issueID).innerText()).includes(text), ms);
  }

  async setTitle(text) {
    await this.title.fill(text);
    await this.title.press('Enter');
  }

  /** Until a field of the open issue has a value. */
  async shows(field, text) {
    await this.detail.getByRole('button', {name: field, exact: true}).filter({hasText: text}).waitFor();
  }

  /** Picks from one of the lists that open below a button. */
  async pick(where, label, text) {
    await where.getByRole('button', {name: label, exact: true}).click();
    await where.getByLabel(`Search: ${label}`, {exact: true}).fill(text);
    await where.getByRole('option').filter({hasText: text}).first().click();
  }

  async comment(text) {
    await this.detail.getByLabel('Write a comment').fill(text);
    await this.detail.getByRole('button', {name: 'Comment', exact: true}).click();
  }
}
