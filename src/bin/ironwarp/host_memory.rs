//! The memory that the operating system leaves to this process: of the machine, of its control groups, and of its address
//! space.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of host memory that the process can still use without swapping, if the operating system reports any limit.
pub fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

/// [`available`], with the system's files under `root`.
fn available_under(root: &Path) -> Option<u64> {
    let limits = [free_memory(root), free_in_control_groups(root), free_address_space(root)];
    limits.into_iter().flatten().min()
}

/// Free memory of the machine.
fn free_memory(root: &Path) -> Option<u64> {
    Some(field(&root.join("proc/meminfo"), "MemAvailable:")?.saturating_mul(1024))
}

/// The address space that is left. The space that the allocator has reserved is subtracted only as far as it is in use,
/// because the allocator serves requests from it.
fn free_address_space(root: &Path) -> Option<u64> {
    let limit = field(&root.join("proc/self/limits"), "Max address space")?;
    let used = field(&root.join("proc/self/status"), "VmRSS:").unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_mul(1024)))
}

/// The smallest memory that is left in the process's control group and those around it, of version 1 or 2.
fn free_in_control_groups(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let left = groups.lines().filter_map(|line| {
        // `4:memory:/user/job` in version 1, `0::/user/job` in version 2.
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mount, files) = match controllers {
            "" => ("sys/fs/cgroup", &VERSION_2),
            _ if controllers.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", &VERSION_1),
            _ => return None,
        };
        // In a container, the path is that of the host, of which only the container's own group is mounted, as the root.
        let mount = root.join(mount);
        let folders = Path::new(path.trim_start_matches('/')).ancestors();
        folders.filter_map(|folder| files.left(&mount.join(folder))).min()
    });
    left.min()
}

/// Names of the files of a control group.
struct GroupFiles {
    limit: &'static str,
    usage: &'static str,
    /// Key of `memory.stat`: the page cache that the kernel reclaims before the limit is hit.
    reclaimable: &'static str,
}

const VERSION_1: GroupFiles =
    GroupFiles { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", reclaimable: "total_inactive_file " };
const VERSION_2: GroupFiles =
    GroupFiles { limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file " };

impl GroupFiles {
    /// Bytes that are left in the group of this folder; `None` if it has no limit.
    fn left(&self, group: &Path) -> Option<u64> {
        let file = |name: &str| -> PathBuf { group.join(name) };
        let limit = field(&file(self.limit), "")?;
        let usage = field(&file(self.usage), "").unwrap_or(0);
        let reclaimable = field(&file("memory.stat"), self.reclaimable).unwrap_or(0);
        Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
    }
}

/// The number after `key` at the start of a line of a file; `None` if there is no such line or it states no number, such as
/// `unlimited`.
fn field(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn system(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        available_under(root.path())
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:  16777216 kB\nMemAvailable:    8388608 kB\n");

    #[test]
    fn without_limits_the_memory_of_the_machine_is_available() {
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[MACHINE]), Some(8 * GIB));
        let unlimited = [
            MACHINE,
            ("proc/self/cgroup", "4:memory:/a\n0::/b\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/b/memory.max", "max\n"),
            ("proc/self/limits", "Max address space         unlimited            unlimited            bytes     \n"),
        ];
        assert_eq!(system(&unlimited), Some(8 * GIB));
    }

    #[test]
    fn the_limits_of_version_2_apply_to_all_groups_inside() {
        let mut files = vec![
            MACHINE,
            ("proc/self/cgroup", "0::/user/job\n"),
            ("sys/fs/cgroup/user/memory.max", "3221225472\n"),
            ("sys/fs/cgroup/user/memory.current", "1610612736\n"),
            ("sys/fs/cgroup/user/memory.stat", "anon 1073741824\ninactive_file 536870912\n"),
            ("sys/fs/cgroup/user/job/memory.max", "max\n"),
        ];
        // 3 GiB less 1.5 GiB in use, of which 0.5 GiB are page cache.
        assert_eq!(system(&files), Some(2 * GIB));
        files[5].1 = "1073741824\n";
        assert_eq!(system(&files), Some(GIB));
    }

    #[test]
    fn the_limit_of_a_container_is_at_the_root_of_its_mount() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "5:cpu:/docker/0a\n4:cpuset,memory:/docker/0a\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1500000000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "500000000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 100000000\n"),
        ];
        assert_eq!(system(&files), Some(1_100_000_000));
    }

    #[test]
    fn the_address_space_may_be_limited() {
        let files = [
            MACHINE,
            ("proc/self/limits", "Max address space         2147483648           unlimited            bytes     \n"),
            ("proc/self/status", "VmSize:\t 1572864 kB\nVmRSS:\t 1048576 kB\n"),
        ];
        assert_eq!(system(&files), Some(GIB));
    }
}
