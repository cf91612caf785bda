// Queries by name. The page runs them on its local copy at once; the backend
// turns the same names into the queries that the server keeps up to date.
import {defineQueries, defineQuery, escapeLike} from '@rocicorp/zero';
import {z} from 'zod';
import {STATUSES, zql} from './schema.mjs';

const limit = z.number().int().min(1).max(1000);
const none = z.undefined();

/** What a sort order compares; the primary key settles the rest. */
export const ORDERS = {
  created: [['createdAt', 'desc']],
  updated: [['updatedAt', 'desc']],
  priority: [
    ['priority', 'desc'],
    ['createdAt', 'desc'],
  ],
};

const listArgs = z.object({
  projectID: z.string().nullish(),
  status: z.enum(STATUSES).nullish(),
  labelID: z.string().nullish(),
  // 'none' asks for issues that nobody has.
  assigneeID: z.string().nullish(),
  search: z.string().nullish(),
  order: z.enum(Object.keys(ORDERS)).default('created'),
  limit: limit.default(50),
  // The row to continue after: the columns of the order, and the key.
  after: z
    .object({
      id: z.string(),
      createdAt: z.number().optional(),
      updatedAt: z.number().optional(),
      priority: z.number().optional(),
    })
    .nullish(),
});

function list(args) {
  let q = zql.issue.related('project').related('assignee').related('labels');
  if (args.projectID) q = q.where('projectID', args.projectID);
  if (args.status) q = q.where('status', args.status);
  if (args.assigneeID === 'none') q = q.where('assigneeID', 'IS', null);
  else if (args.assigneeID) q = q.where('assigneeID', args.assigneeID);
  if (args.labelID) q = q.whereExists('labels', l => l.where('id', args.labelID));
  for (const word of (args.search ?? '').split(/\s+/).filter(Boolean)) {
    const pattern = `%${escapeLike(word)}%`;
    q = q.where(({cmp, or}) => or(cmp('title', 'ILIKE', pattern), cmp('body', 'ILIKE', pattern)));
  }
  for (const [column, direction] of ORDERS[args.order]) q = q.orderBy(column, direction);
  if (args.after) q = q.start(args.after);
  return q.limit(args.limit);
}

export const queries = defineQueries({
  issue: {
    recent: defineQuery(z.object({limit}), ({args}) => zql.issue.orderBy('createdAt', 'desc').limit(args.limit)),
    byProject: defineQuery(z.object({projectID: z.string()}), ({args}) =>
      zql.issue.where('projectID', args.projectID),
    ),
    board: defineQuery(z.object({projectID: z.string(), limit: limit.default(50)}), ({args}) =>
      zql.issue
        .where('projectID', args.projectID)
        .related('creator')
        .related('assignee')
        .related('labels')
        .orderBy('updatedAt', 'desc')
        .limit(args.limit),
    ),
    list: defineQuery(listArgs, ({args}) => list(args)),
    detail: defineQuery(z.object({id: z.string()}), ({args}) =>
      zql.issue
        .where('id', args.id)
        .related('project')
        .related('creator')
        .related('assignee')
        .related('labels')
        .related('comments', c => c.orderBy('createdAt', 'asc').related('author'))
        .one(),
    ),
    // What is visible depends on who asks, not on the arguments.
    mine: defineQuery(none, ({ctx}) =>
      zql.issue.where('assigneeID', ctx?.userID ?? '').orderBy('updatedAt', 'desc').limit(100),
    ),
  },
  project: {
    all: defineQuery(none, () => zql.project.orderBy('name', 'asc').limit(1000)),
  },
  label: {
    all: defineQuery(none, () => zql.label.orderBy('name', 'asc')),
  },
  user: {
    one: defineQuery(z.object({id: z.string()}), ({args}) => zql.user.where('id', args.id).one()),
    search: defineQuery(z.object({text: z.string(), limit: limit.default(30)}), ({args}) =>
      zql.user.where('name', 'ILIKE', `%${escapeLike(args.text)}%`).orderBy('name', 'asc').limit(args.limit),
    ),
  },
});
