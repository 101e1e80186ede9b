// A program with cilium/ebpf that loads an object and takes no option for BTF.
package main

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
)

func main() {
	spec, err := ebpf.LoadCollectionSpec(os.Args[1])
	if err == nil {
		_, err = ebpf.NewCollection(spec)
	}
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	fmt.Println("loaded")
}
