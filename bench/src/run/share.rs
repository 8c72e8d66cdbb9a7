//! Lambda's share of a core: 1,769 MB have a whole one. Source: AWS Lambda Developer Guide, "Configure Lambda function
//! memory". How it is dealt out, in periods of 20 ms, AWS does not say; Lambda's own machines show it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const A_CORE_MB: u32 = 1769;
const PERIOD_MICROS: u32 = 20_000;

/// A CPU cgroup of version 1 or 2, removed when dropped.
pub struct Share(PathBuf);

impl Share {
    pub fn of(memory_mb: u32) -> Result<Self, Box<dyn Error>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = Path::new("/sys/fs/cgroup");
        let unified = base.join("cgroup.controllers").exists();
        let base = if unified { base.to_owned() } else { base.join("cpu") };
        let name = format!("hookswitch-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = base.join(name);
        std::fs::create_dir(&folder)
            .map_err(|error| format!("no cgroup can be made ({error}): --throttle needs root"))?;
        let share = Self(folder);
        let quota = PERIOD_MICROS * memory_mb.min(A_CORE_MB) / A_CORE_MB;
        if unified {
            share.write("cpu.max", &format!("{quota} {PERIOD_MICROS}"))?;
        } else {
            share.write("cpu.cfs_period_us", &PERIOD_MICROS.to_string())?;
            share.write("cpu.cfs_quota_us", &quota.to_string())?;
        }
        Ok(share)
    }

    /// From now on the process gets no more.
    pub fn hold(&self, id: u32) -> Result<(), Box<dyn Error>> {
        self.write("cgroup.procs", &id.to_string())
    }

    fn write(&self, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
        let file = self.0.join(name);
        std::fs::write(&file, value).map_err(|error| format!("{}: {error}", file.display()).into())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Its process was killed and may be on its way out.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}
