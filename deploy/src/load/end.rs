//! How a run ended.

use std::error::Error;
use std::process::ExitCode;

use switchboard_contract::process::EXIT_FAILURE;

use super::EXIT_VIOLATION;

/// How a run ended, for the report and the caller.
#[derive(Debug)]
pub(super) struct End {
    pub(super) code: ExitCode,
    /// The first broken rule.
    pub(super) violation: Option<String>,
    /// The run was ended before its time.
    pub(super) interrupted: bool,
}

impl End {
    /// Of what a run gave: whether it was interrupted, or an error, which is a broken rule if it is a `V`.
    ///
    /// # Errors
    /// Any other error.
    pub(super) fn of<V: Error + Send + Sync + 'static>(outcome: anyhow::Result<bool>) -> anyhow::Result<End> {
        Ok(match outcome {
            Ok(interrupted) => {
                let code = if interrupted { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS };
                End { code, violation: None, interrupted }
            }
            Err(error) => {
                let violation = Some(error.downcast::<V>()?.to_string());
                End { code: ExitCode::from(EXIT_VIOLATION), violation, interrupted: false }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::guest::Broken;
    use super::*;

    #[test]
    fn only_a_broken_rule_is_a_violation() {
        let of = |outcome| {
            let end = End::of::<Broken>(outcome).ok()?;
            Some((end.code, end.violation, end.interrupted))
        };
        assert_eq!(of(Ok(false)), Some((ExitCode::SUCCESS, None, false)));
        assert_eq!(of(Ok(true)), Some((ExitCode::from(EXIT_FAILURE), None, true)));
        let broken = of(Err(Broken("lost".into()).into()));
        assert_eq!(broken, Some((ExitCode::from(EXIT_VIOLATION), Some("lost".into()), false)));
        assert_eq!(of(Err(anyhow::anyhow!("no database"))), None);
    }
}
