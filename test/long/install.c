// A program with libbpf that loads an object and takes no option for BTF.
#include <bpf/libbpf.h>
#include <stdio.h>

int main(int count, char **arguments)
{
	struct bpf_object *object = count == 2 ? bpf_object__open_file(arguments[1], NULL) : NULL;
	int error = object ? bpf_object__load(object) : -1;

	if (error)
		printf("refused: %d\n", error);
	else
		puts("loaded");
	return error != 0;
}
