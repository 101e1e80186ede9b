/* A module as far as the generator looks: a struct of its own that holds one of the kernel's. */
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
