/* The parts of a kernel image that the generator reads: banner, task_struct, DWARF. The linker adds the build-id. */
const char linux_banner[] = "Linux version " RELEASE " (builder@host) (clang) #1 SMP Debian " VERSION " (2023-02-01)\n";

struct list_head {
  struct list_head *next, *prev;
};

struct task_struct {
  unsigned int flags;
  struct list_head tasks;
  int pid;
  int TGID;
  struct task_struct *parent;
  char comm[16];
  unsigned long stack[STACK];
};

struct task_struct init_task;

/* Its calls are inlined, and it is kept. */
__attribute__((used)) static inline int helper(const struct task_struct *task) { return task->pid + 1; }

int start_kernel(void) { return linux_banner[0] + helper(&init_task); }
