//! Edited documents: what is new is started, what is gone is stopped, what changed is replaced, and only that.

use std::sync::Arc;

use super::{Group, Supervisor, find};
use crate::intent::Process;

impl Supervisor {
    /// Starts everything, in this order.
    ///
    /// # Errors
    /// When an instance does not get ready.
    pub(in crate::cli::up) async fn bring_up(
        &self,
        processes: Vec<Arc<Process>>,
    ) -> anyhow::Result<()> {
        for process in processes {
            self.add(process).await?;
        }
        Ok(())
    }

    /// Brings what runs in step with these documents. What does not get ready is said; the old instances stay then.
    pub(in crate::cli::up) async fn apply<'a>(
        &self,
        wanted: impl Iterator<Item = &'a Arc<Process>>,
    ) {
        let wanted: Vec<Arc<Process>> = wanted.cloned().collect();
        let current: Vec<Arc<Process>> =
            self.groups().iter().map(|group| Arc::clone(&group.spec)).collect();
        for old in current.iter().filter(|old| wanted.iter().all(|new| new.name != old.name)) {
            self.say(&format!("{} is in the files no more", old.name.name));
            self.withdraw(&old.name.name).await;
        }
        for new in wanted {
            let name = new.name.name.clone();
            let done = match current.iter().find(|old| old.name == new.name) {
                Some(old) if *old == new => continue,
                Some(old) => {
                    self.say(&format!("{name} was edited"));
                    self.change(old, new).await
                }
                None => {
                    self.say(&format!("{name} is new in the files"));
                    self.add(new).await
                }
            };
            match done {
                Ok(()) => self.say(&format!("{name} is as its document says")),
                Err(error) => self.say(&format!("{name} is not as its document says: {error:#}")),
            }
        }
    }

    /// Instances that somebody scaled by hand stay as many, unless the document has another number now.
    async fn change(&self, old: &Process, new: Arc<Process>) -> anyhow::Result<()> {
        let name = new.name.name.as_str();
        let recipe_is_same = Process { instances: old.instances, ..Process::clone(&new) } == *old;
        let instances = {
            let mut groups = self.groups();
            let group = find(&mut groups, name)?;
            group.spec = Arc::clone(&new);
            if old.instances == new.instances { group.target } else { new.instances as usize }
        };
        if !recipe_is_same {
            self.restart(name).await?;
        }
        self.scale(name, instances).await
    }

    async fn withdraw(&self, name: &str) {
        let _one = self.changing.lock().await;
        let gone: Vec<Group> = {
            let mut groups = self.groups();
            let at = groups.iter().position(|group| group.spec.name.name == name);
            at.map(|at| groups.remove(at)).into_iter().collect()
        };
        for member in gone.iter().flat_map(|group| &group.members) {
            self.retire(member).await;
        }
    }
}
