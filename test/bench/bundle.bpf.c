/* A tracer of typical size: a task with its credentials and namespaces, the file it opens, the socket it uses. */
#include "../fixtures/core/task.bpf.c"

struct qstr {
	const unsigned char *name;
} KERNEL;

struct super_block {
	unsigned long s_magic;
} KERNEL;

struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
} KERNEL;

struct dentry {
	struct qstr d_name;
	struct dentry *d_parent;
	struct inode *d_inode;
} KERNEL;

struct path {
	struct dentry *dentry;
} KERNEL;

struct file {
	struct path f_path;
	struct inode *f_inode;
} KERNEL;

struct sock_common {
	__be32 skc_daddr;
	__be16 skc_dport;
	unsigned short skc_family;
} KERNEL;

struct sock {
	struct sock_common __sk_common;
} KERNEL;

SEC("kprobe/security_file_open")
int open(struct file **args)
{
	struct file *file = args[0];
	out[9] = BPF_CORE_READ(file, f_inode, i_ino);
	out[10] = BPF_CORE_READ(file, f_path.dentry, d_inode, i_sb, s_magic);
	out[11] = (__u64)BPF_CORE_READ(file, f_path.dentry, d_parent, d_name.name);
	return 0;
}

SEC("kprobe/tcp_connect")
int connect(struct sock **args)
{
	struct sock *sock = args[0];
	out[12] = BPF_CORE_READ(sock, __sk_common.skc_daddr);
	out[13] = BPF_CORE_READ(sock, __sk_common.skc_dport);
	out[14] = BPF_CORE_READ(sock, __sk_common.skc_family);
	return 0;
}
