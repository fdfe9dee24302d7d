//! An operator who changes, stops, restarts and removes what is in use; and defects of our own.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use actix::Addr;
use tokio::time::sleep;

use super::{Stage, chance::Chance, client::Client};
use crate::{
    fleet::{AddressOf, Fleet, Reconcile, RestartOne},
    upstream::{UpstreamSpec, actor::Panic, spec::Transport},
};

pub struct Operator {
    chance: Chance,
    stage: Rc<Stage>,
    fleet: Addr<Fleet>,
    /// What there is when nothing is switched off or removed.
    all: RefCell<Vec<UpstreamSpec>>,
    removed: RefCell<HashSet<usize>>,
}

impl Operator {
    pub fn new(seed: u64, stage: Rc<Stage>, fleet: Addr<Fleet>, all: Vec<UpstreamSpec>) -> Self {
        let (all, removed) = (RefCell::new(all), RefCell::default());
        Self { chance: Chance::new(seed, 998), stage, fleet, all, removed }
    }

    pub async fn reconcile(&self) {
        let removed = self.removed.borrow().clone();
        let mut wanted = self.all.borrow().clone();
        let mut place = 0..;
        wanted.retain(|_| place.next().is_some_and(|place| !removed.contains(&place)));
        let (remembered, tried_before) = (HashMap::new(), HashSet::new());
        let order = Reconcile { wanted, remembered, tried_before };
        if self.fleet.send(order).await.is_err() {
            self.stage.history.violated("the root supervisor is dead");
        }
    }

    /// Does one thing after another, for ever.
    pub async fn meddle(&self, clients: &[Rc<Client>]) {
        loop {
            sleep(Duration::from_millis(500) + self.chance.up_to(8_000)).await;
            let count = self.all.borrow().len();
            let place = self.chance.below(count);
            let id = self.all.borrow()[place].id;
            let name = format!("u{}", id.as_u128());
            let tell = |what: &str| self.stage.history.say(format!("the operator {what} {name}"));
            match self.chance.below(8) {
                0 => {
                    tell("restarts");
                    if self.fleet.send(RestartOne(id)).await.is_err() {
                        self.stage.history.violated("the root supervisor is dead");
                    }
                }
                1 => {
                    tell("switches on or off");
                    let spec = &mut self.all.borrow_mut()[place];
                    spec.enabled = !spec.enabled;
                }
                2 => {
                    tell("renames");
                    self.all.borrow_mut()[place].name.push('x');
                }
                3 => {
                    tell("gives other arguments to");
                    let spec = &mut self.all.borrow_mut()[place];
                    if let Transport::Stdio { args, .. } = &mut spec.transport {
                        args.push("more".into());
                    }
                }
                4 => {
                    tell("removes or brings back");
                    let mut removed = self.removed.borrow_mut();
                    if !removed.remove(&place) {
                        removed.insert(place);
                    }
                }
                5 => {
                    tell("meets a defect in");
                    if let Ok(Some(address)) = self.fleet.send(AddressOf(id)).await {
                        address.do_send(Panic);
                    }
                }
                6 => clients[self.chance.below(clients.len())].begin_anew(),
                _ => {}
            }
            self.reconcile().await;
        }
    }

    /// Everything is there and switched on.
    pub async fn repair(&self) {
        // What comes back here has the uuid that it had, which no row ever has: so it is to be gone first.
        sleep(Duration::from_secs(1)).await;
        self.removed.borrow_mut().clear();
        self.all.borrow_mut().iter_mut().for_each(|spec| spec.enabled = true);
        self.reconcile().await;
    }
}
