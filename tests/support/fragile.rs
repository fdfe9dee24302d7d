//! A gateway that panics where a test asks for it.

use super::{SOON, TestGateway, gateway::Start, wait_until};

/// A gateway, and the directory in which it finds what it is to panic at.
pub struct Fragile {
    pub gateway: TestGateway,
    points: tempfile::TempDir,
}

impl Fragile {
    pub async fn start(settings: &str) -> Fragile {
        Fragile::begin(Start::new().settings(settings)).await
    }

    pub async fn begin(start: Start) -> Fragile {
        let points = tempfile::tempdir().unwrap();
        let directory = points.path().display().to_string();
        let start = start.environment("METAMCPD_FAILPOINTS", &directory);
        Fragile { gateway: start.run().await, points }
    }

    pub fn arm(&self, point: &str) {
        self.arm_to(point, "");
    }

    /// The same, with a word of what is to happen there.
    pub fn arm_to(&self, point: &str, wish: &str) {
        // Whole from the moment that it is there.
        let file = self.points.path().join(point);
        let aside = file.with_extension("aside");
        std::fs::write(&aside, wish).unwrap();
        std::fs::rename(aside, file).unwrap();
    }

    pub fn disarm(&self, point: &str) {
        std::fs::remove_file(self.points.path().join(point)).unwrap();
    }

    pub async fn went_off(&self, point: &str) {
        let file = self.points.path().join(point);
        wait_until(point, SOON, async || (!file.exists()).then_some(())).await;
    }

    /// Waits until so many panics are counted, and sees that they are no more.
    pub async fn counted(&self, panics: f64) {
        wait_until("the panics to be counted", SOON, async || {
            let counted = self.gateway.metric("metamcpd_panics_total").await.unwrap_or_default();
            assert!(counted <= panics, "{counted} of {panics}:\n{}", self.gateway.log());
            (counted == panics).then_some(())
        })
        .await;
    }
}
