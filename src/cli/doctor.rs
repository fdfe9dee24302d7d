//! `metamcpd doctor`: what is wrong with this installation, and what to do about it.

use super::{Failure, Place, say};
use crate::{
    doctor::{
        examine,
        finding::{Finding, Severity, worst},
    },
    settings::Settings,
};

#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    place: Place,
    /// One JSON object a line instead of text.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub fn run(self) -> Result<(), Failure> {
        let settings = Settings::read(self.place.config.as_deref());
        let settings = settings.and_then(|settings| Settings::admin_key().map(|_| settings));
        let settings = match settings {
            Ok(settings) => settings,
            Err(error) => {
                let cure = "mend it there; `config/default.toml` is the manual";
                self.tell(&Finding::error("settings", error.to_string(), cure));
                return Err(error.into());
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Other(error.to_string()))?;
        let found = runtime.block_on(examine(&settings, &self.place.data_dir));
        for finding in &found {
            self.tell(finding);
        }
        match worst(&found) {
            Severity::Ok | Severity::Warning => Ok(()),
            Severity::Error => {
                let errors = found.iter().filter(|it| it.severity == Severity::Error).count();
                Err(Failure::Other(format!("{errors} of {} findings are errors", found.len())))
            }
        }
    }

    fn tell(&self, finding: &Finding) {
        match serde_json::to_string(finding) {
            Ok(line) if self.json => say(&line),
            Ok(_) | Err(_) => finding.to_text().lines().for_each(say),
        }
    }
}
