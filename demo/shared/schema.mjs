// Tables and relationships of the issue tracker, as the page and the backend see
// them. Names in the database are given where they differ.
import {
  boolean,
  createBuilder,
  createSchema,
  enumeration,
  json,
  number,
  relationships,
  string,
  table,
} from '@rocicorp/zero';

const user = table('user')
  .from('users')
  .columns({
    id: string(),
    name: string(),
    email: string().optional(),
    role: enumeration(),
    createdAt: number().from('created_at'),
  })
  .primaryKey('id');

const project = table('project')
  .from('projects')
  .columns({
    id: string(),
    key: string(),
    name: string(),
    ownerID: string().from('owner_id').optional(),
    archived: boolean(),
  })
  .primaryKey('id');

const issue = table('issue')
  .from('issues')
  .columns({
    id: string(),
    projectID: string().from('project_id'),
    num: number(),
    title: string(),
    body: string().optional(),
    status: enumeration(),
    priority: number(),
    estimate: number().optional(),
    creatorID: string().from('creator_id'),
    assigneeID: string().from('assignee_id').optional(),
    meta: json().optional(),
    rev: number(),
    createdAt: number().from('created_at'),
    updatedAt: number().from('updated_at'),
  })
  .primaryKey('id');

const comment = table('comment')
  .from('comments')
  .columns({
    id: string(),
    issueID: string().from('issue_id'),
    authorID: string().from('author_id').optional(),
    body: string(),
    createdAt: number().from('created_at'),
  })
  .primaryKey('id');

const label = table('label')
  .from('labels')
  .columns({id: string(), name: string(), color: string().optional()})
  .primaryKey('id');

const issueLabel = table('issueLabel')
  .from('issue_labels')
  .columns({issueID: string().from('issue_id'), labelID: string().from('label_id')})
  .primaryKey('issueID', 'labelID');

const projectRelationships = relationships(project, ({one, many}) => ({
  owner: one({sourceField: ['ownerID'], destField: ['id'], destSchema: user}),
  issues: many({sourceField: ['id'], destField: ['projectID'], destSchema: issue}),
}));

const issueRelationships = relationships(issue, ({one, many}) => ({
  project: one({sourceField: ['projectID'], destField: ['id'], destSchema: project}),
  creator: one({sourceField: ['creatorID'], destField: ['id'], destSchema: user}),
  assignee: one({sourceField: ['assigneeID'], destField: ['id'], destSchema: user}),
  comments: many({sourceField: ['id'], destField: ['issueID'], destSchema: comment}),
  labels: many(
    {sourceField: ['id'], destField: ['issueID'], destSchema: issueLabel},
    {sourceField: ['labelID'], destField: ['id'], destSchema: label},
  ),
}));

const commentRelationships = relationships(comment, ({one}) => ({
  issue: one({sourceField: ['issueID'], destField: ['id'], destSchema: issue}),
  author: one({sourceField: ['authorID'], destField: ['id'], destSchema: user}),
}));

export const schema = createSchema({
  tables: [user, project, issue, comment, label, issueLabel],
  relationships: [projectRelationships, issueRelationships, commentRelationships],
});

export const zql = createBuilder(schema);

export const STATUSES = ['open', 'in_progress', 'done', 'wontfix'];
export const PRIORITIES = ['None', 'Low', 'Medium', 'High', 'Urgent'];
