/* The parts of a module that the generator reads: its own struct, with a struct of the kernel in it. */
struct list_head {
  struct list_head *next, *prev;
};

struct MODULE {
  struct list_head list;
  int depth;
  unsigned long long flags;
};

struct MODULE state;

int init_module(void) { return state.depth; }
