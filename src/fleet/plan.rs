//! What has to be done so that what runs becomes what is wanted.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::upstream::UpstreamSpec;

/// One step. Nothing that has not changed is in any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Launch(UpstreamSpec),
    Change(UpstreamSpec),
    Remove(Uuid),
}

/// The steps from `running` to `wanted`, removals first.
pub fn plan(wanted: Vec<UpstreamSpec>, running: &HashMap<Uuid, UpstreamSpec>) -> Vec<Step> {
    // In the order of ids, which is that of creation, so that a start is the same each time.
    let wanted: BTreeMap<Uuid, UpstreamSpec> =
        wanted.into_iter().map(|spec| (spec.id, spec)).collect();
    let gone = running.keys().filter(|id| !wanted.contains_key(id)).map(|id| Step::Remove(*id));
    let mut steps: Vec<Step> = gone.collect();
    for (id, spec) in wanted {
        match running.get(&id) {
            None => steps.push(Step::Launch(spec)),
            Some(current) if *current != spec => steps.push(Step::Change(spec)),
            Some(_unchanged) => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::upstream::{
        Isolation,
        spec::{CallLimits, Transport, Upkeep},
    };

    fn spec(id: u128, name: &str) -> UpstreamSpec {
        let second = Duration::from_secs(1);
        UpstreamSpec {
            id: Uuid::from_u128(id),
            name: name.into(),
            enabled: true,
            transport: Transport::Stdio {
                command: "x".into(),
                args: Vec::new(),
                env: Default::default(),
            },
            isolation: Isolation::Shared,
            limits: CallLimits { inactivity: second, total: second, reset_on_progress: true },
            connect_timeout: second,
            may_use_variables: true,
            upkeep: Upkeep::default(),
        }
    }

    #[test]
    fn only_what_differs_is_touched() {
        let running = [spec(1, "a"), spec(2, "b"), spec(3, "c")];
        let running = running.into_iter().map(|spec| (spec.id, spec)).collect();
        let wanted = vec![spec(4, "d"), spec(2, "new"), spec(1, "a")];
        assert_eq!(
            plan(wanted, &running),
            [
                Step::Remove(Uuid::from_u128(3)),
                Step::Change(spec(2, "new")),
                Step::Launch(spec(4, "d")),
            ]
        );
        assert_eq!(plan(running.values().cloned().collect(), &running), []);
    }
}
