//! The default budget, by the memory that the process may use.

use std::path::{Path, PathBuf};

/// The budget where the memory of the system cannot be read.
const FALLBACK_BYTES: u64 = 1 << 30;

/// Returns the default budget: half of the limit of the process's cgroup, else a quarter of
/// the RAM.
pub fn default_budget() -> usize {
    budget(&|path| std::fs::read_to_string(path).ok())
}

fn budget(read: &dyn Fn(&Path) -> Option<String>) -> usize {
    let ram = ram(read);
    let limit = cgroup_limit(read).filter(|limit| ram.is_none_or(|ram| *limit < ram));
    let bytes = match (limit, ram) {
        (Some(limit), _) => limit / 2,
        (None, Some(ram)) => ram / 4,
        (None, None) => FALLBACK_BYTES,
    };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Returns the RAM. Source: proc_meminfo(5).
fn ram(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let text = read(Path::new("/proc/meminfo"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns the lowest limit of the cgroups that the process is in. Source: cgroups(7);
/// Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux.
fn cgroup_limit(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let own = read(Path::new("/proc/self/cgroup"))?;
    let mut limits = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next(), parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Within a container, the path may be that of the host, which is not mounted: then
        // the root is the own group.
        let mut group = PathBuf::from(path.trim_start_matches('/'));
        loop {
            let text = read(&Path::new(root).join(&group).join(file));
            // Unlimited: "max", or in v1 a number near 2^63.
            limits.extend(text.and_then(|text| text.trim().parse::<u64>().ok()));
            if !group.pop() {
                break;
            }
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_half_of_the_cgroup_else_a_quarter_of_the_ram() {
        const MIB: usize = 1 << 20;
        let ram = (
            "/proc/meminfo",
            "MemTotal:       8388608 kB\nMemFree: 1 kB\n",
        );
        for (files, want) in [
            (vec![ram], 2_048 * MIB),
            (vec![], 1_024 * MIB),
            // v2, in a container.
            (
                vec![
                    ram,
                    ("/proc/self/cgroup", "0::/\n"),
                    ("/sys/fs/cgroup/memory.max", "536870912\n"),
                ],
                256 * MIB,
            ),
            // v2: a limit of a parent.
            (
                vec![
                    ram,
                    ("/proc/self/cgroup", "0::/a/b\n"),
                    ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
                    ("/sys/fs/cgroup/a/memory.max", "1073741824\n"),
                ],
                512 * MIB,
            ),
            // v1, with the host's path.
            (
                vec![
                    ram,
                    ("/proc/self/cgroup", "9:cpu:/x\n4:memory:/docker/1\n"),
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456"),
                ],
                128 * MIB,
            ),
            (
                vec![
                    ram,
                    ("/proc/self/cgroup", "4:cpu,memory:/\n"),
                    (
                        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                        "9223372036854771712",
                    ),
                ],
                2_048 * MIB,
            ),
            (
                vec![ram, ("/proc/self/cgroup", "0::/\nnonsense\n")],
                2_048 * MIB,
            ),
        ] {
            let read = |path: &Path| {
                let file = files.iter().find(|(name, _)| Path::new(name) == path);
                file.map(|(_, text)| (*text).to_owned())
            };
            assert_eq!(budget(&read), want, "{files:?}");
        }
    }
}
