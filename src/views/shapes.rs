//! Conditions by what they ask: EXISTS and NOT EXISTS of equal shape are one for all views
//! of a core, so that a changed row is looked at once for all of them (rule 5, finding 3).

use std::sync::Arc;

use hashbrown::HashMap;

use super::subscription_index::{Listening, SubscriptionIndex, Target};
use super::view::{ShapeId, ViewId};
use crate::zql::plan::{Exists, Plan};

/// One condition, as all views that have it share it.
pub struct Shape {
    plan: Arc<Plan>,
    condition: usize,
    /// Conditions inside one another, this one included.
    pub depth: u32,
    /// Conditions that this one is directly inside of.
    pub above: Vec<ShapeId>,
    nested: Vec<ShapeId>,
    /// Views that have it, with how often.
    users: HashMap<ViewId, usize>,
    listening: Listening,
}

impl Shape {
    /// What is asked.
    pub fn exists(&self) -> &Exists {
        &self.plan.conditions[self.condition]
    }

    /// Views that have it.
    pub fn users(&self) -> impl Iterator<Item = ViewId> {
        self.users.keys().copied()
    }
}

/// All conditions of a core.
#[derive(Default)]
pub struct Shapes {
    by_key: HashMap<Arc<[u8]>, ShapeId>,
    slots: Vec<Option<Shape>>,
    free: Vec<u32>,
}

impl Shapes {
    /// A condition.
    pub fn get(&self, id: ShapeId) -> Option<&Shape> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    /// Takes the conditions of a view in. Returns their numbers, as the plan lists them.
    pub fn add(
        &mut self,
        view: ViewId,
        plan: &Arc<Plan>,
        subscription_index: &mut SubscriptionIndex,
    ) -> Vec<ShapeId> {
        let mut ids: Vec<ShapeId> = Vec::with_capacity(plan.conditions.len());
        for (condition, exists) in plan.conditions.iter().enumerate() {
            let id = match self.by_key.get(&exists.shape) {
                Some(id) => *id,
                None => {
                    let nested = exists.nested.iter().map(|n| ids[*n]).collect();
                    self.make(plan, condition, nested, subscription_index)
                }
            };
            if let Some(shape) = &mut self.slots[id.0 as usize] {
                *shape.users.entry(view).or_default() += 1;
            }
            ids.push(id);
        }
        ids
    }

    fn make(
        &mut self,
        plan: &Arc<Plan>,
        condition: usize,
        nested: Vec<ShapeId>,
        subscription_index: &mut SubscriptionIndex,
    ) -> ShapeId {
        let id = ShapeId(self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        }));
        let exists = &plan.conditions[condition];
        let cursor = exists.cursor.as_ref().map(|(cursor, order)| (cursor, &**order));
        let listening = Listening::of(&exists.filter, cursor);
        subscription_index.listen(exists.table, &listening, Target::Shape(id), true);
        let mut depth = 1;
        for inner in &nested {
            if let Some(inner) = &mut self.slots[inner.0 as usize] {
                inner.above.push(id);
                depth = depth.max(inner.depth + 1);
            }
        }
        self.by_key.insert(exists.shape.clone(), id);
        let (plan, above, users) = (plan.clone(), Vec::new(), HashMap::new());
        self.slots[id.0 as usize] = Some(Shape { plan, condition, depth, above, nested, users, listening });
        id
    }

    /// A further index may serve a condition: from now on it is read as this plan says.
    pub fn plan_anew(&mut self, id: ShapeId, plan: &Arc<Plan>, condition: usize) {
        if let Some(shape) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) {
            (shape.plan, shape.condition) = (plan.clone(), condition);
        }
    }

    /// Gives up the conditions of a view.
    pub fn remove(&mut self, view: ViewId, ids: &[ShapeId], subscription_index: &mut SubscriptionIndex) {
        // Those around others first.
        for id in ids.iter().rev() {
            let Some(shape) = &mut self.slots[id.0 as usize] else { continue };
            match shape.users.get_mut(&view) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(shape.users.remove(&view)),
            }
            if shape.users.is_empty() {
                self.drop_shape(*id, subscription_index);
            }
        }
    }

    fn drop_shape(&mut self, id: ShapeId, subscription_index: &mut SubscriptionIndex) {
        let Some(shape) = self.slots[id.0 as usize].take() else { return };
        let exists = shape.exists();
        subscription_index.listen(exists.table, &shape.listening, Target::Shape(id), false);
        for inner in &shape.nested {
            if let Some(inner) = &mut self.slots[inner.0 as usize] {
                inner.above.retain(|above| *above != id);
            }
        }
        self.by_key.remove(&exists.shape);
        self.free.push(id.0);
    }

    /// Conditions at the moment.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
