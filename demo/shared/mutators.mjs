// Changes by name. Each runs twice: in the page at once, on its local copy, and
// then in the backend, in a transaction on Postgres. What the second run decides
// is what stays.
import {ApplicationError, defineMutator, defineMutators} from '@rocicorp/zero';
import {z} from 'zod';
import {STATUSES, zql} from './schema.mjs';

const id = z.string().min(1).max(64);
const title = z.string().max(200);
const onIssue = shape => z.object({id, ...shape});

/**
 * Only the backend may be believed about who somebody is and what they may do;
 * the page would let anybody through.
 */
async function mayEdit(tx, ctx) {
  if (tx.location === 'client') return;
  if (!ctx?.userID) throw new ApplicationError('Sign in to make changes', {details: {code: 'signed-out'}});
  const user = await tx.run(zql.user.where('id', ctx.userID).one());
  if (!user) throw new ApplicationError('No such user', {details: {code: 'unknown-user'}});
  if (user.role === 'guest') {
    throw new ApplicationError('Guests may comment, but not edit', {details: {code: 'guest'}});
  }
}

async function edit({tx, ctx}, issueID, change) {
  await mayEdit(tx, ctx);
  const issue = await tx.run(zql.issue.where('id', issueID).one());
  if (!issue) {
    // The page may not have the row any more; only the backend knows.
    if (tx.location === 'client') return;
    throw new ApplicationError('This issue no longer exists', {details: {code: 'gone', id: issueID}});
  }
  await tx.mutate.issue.update({id: issueID, ...change, rev: issue.rev + 1, updatedAt: Date.now()});
}

/**
 * Numbers count up within a project. The page guesses from the rows that it has;
 * the backend asks while it holds the project, so two authors never get the same.
 */
async function nextNumber(tx, projectID) {
  if (tx.location === 'server') {
    const held = [...(await tx.dbTransaction.query('select id from projects where id = $1 for update', [projectID]))];
    if (held.length === 0) throw new ApplicationError('No such project', {details: {code: 'gone', id: projectID}});
  }
  const last = await tx.run(zql.issue.where('projectID', projectID).orderBy('num', 'desc').one());
  return (last?.num ?? 0) + 1;
}

export const mutators = defineMutators({
  issue: {
    create: defineMutator(
      z.object({id, projectID: id, title, body: z.string().max(20_000).nullish()}),
      async ({tx, ctx, args}) => {
        await mayEdit(tx, ctx);
        if (!args.title.trim()) throw new ApplicationError('An issue needs a title', {details: {code: 'no-title'}});
        const now = Date.now();
        await tx.mutate.issue.insert({
          id: args.id,
          projectID: args.projectID,
          num: await nextNumber(tx, args.projectID),
          title: args.title.trim(),
          body: args.body ?? null,
          status: 'open',
          priority: 0,
          creatorID: ctx?.userID ?? '',
          rev: 0,
          createdAt: now,
          updatedAt: now,
        });
      },
    ),
    setTitle: defineMutator(onIssue({title}), async o => {
      const wanted = o.args.title.trim();
      if (!wanted) throw new ApplicationError('An issue needs a title', {details: {code: 'no-title'}});
      await edit(o, o.args.id, {title: wanted});
    }),
    setBody: defineMutator(onIssue({body: z.string().max(20_000)}), o =>
      edit(o, o.args.id, {body: o.args.body.trim() === '' ? null : o.args.body}),
    ),
    setStatus: defineMutator(onIssue({status: z.enum(STATUSES)}), o => edit(o, o.args.id, {status: o.args.status})),
    setPriority: defineMutator(onIssue({priority: z.number().int().min(0).max(4)}), o =>
      edit(o, o.args.id, {priority: o.args.priority}),
    ),
    assign: defineMutator(onIssue({assigneeID: id.nullable()}), o =>
      edit(o, o.args.id, {assigneeID: o.args.assigneeID}),
    ),
    addLabel: defineMutator(onIssue({labelID: id}), async o => {
      await edit(o, o.args.id, {});
      // Somebody else may have added it meanwhile: that is no error.
      await o.tx.mutate.issueLabel.upsert({issueID: o.args.id, labelID: o.args.labelID});
    }),
    removeLabel: defineMutator(onIssue({labelID: id}), async o => {
      await edit(o, o.args.id, {});
      await o.tx.mutate.issueLabel.delete({issueID: o.args.id, labelID: o.args.labelID});
    }),
  },
  comment: {
    add: defineMutator(
      z.object({id, issueID: id, body: z.string().max(20_000)}),
      async ({tx, ctx, args}) => {
        if (!args.body.trim()) throw new ApplicationError('Nothing to say', {details: {code: 'no-body'}});
        if (!ctx?.userID) throw new ApplicationError('Sign in to comment', {details: {code: 'signed-out'}});
        await tx.mutate.comment.insert({
          id: args.id,
          issueID: args.issueID,
          authorID: ctx.userID,
          body: args.body.trim(),
          createdAt: Date.now(),
        });
      },
    ),
  },
});
