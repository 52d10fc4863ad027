import { thisMachine } from '../index.ts';
import { contract } from './contract.ts';

for (const kind of ['ext4', 'ext3', 'ext2', 'xfs', 'btrfs'] as const) contract({ way: 'nbdfuse', kind });
contract({ way: 'debugfs', kind: 'ext4' });
contract({ way: 'debugfs', kind: 'ext2' });
for (const kind of ['vfat', 'ntfs'] as const) contract({ way: '7z', kind });
contract({ way: '7z', kind: 'ext4', oddNames: false });

// Without FUSE, as in most containers: the file system is copied first.
const bare = () => ({ ...thisMachine(), isRoot: false, hasFuse: false });
contract({ way: 'debugfs', kind: 'ext3', machine: bare, words: 'debugfs on a copy' });
contract({ way: '7z', kind: 'vfat', machine: bare, words: '7z on a copy' });
