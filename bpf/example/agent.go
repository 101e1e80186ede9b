// SPDX-License-Identifier: Apache-2.0

// Command agent loads exec.bpf.o with cilium/ebpf and prints a line per execve(), as agent.c does with libbpf.
//
// For a kernel without BTF, a Go program needs one thing: ProgramOptions.KernelTypes (cilium/ebpf 0.9), a spec read from
// a file with that kernel's BTF, such as btf-fetch gets.
//
//	go build agent.go
//	./agent exec.bpf.o || ./agent -btf "$(./btf-fetch …)" exec.bpf.o
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/perf"
	"github.com/cilium/ebpf/rlimit"
)

// event is struct exec_event of exec.h.
type event struct {
	Pid, Parent, ParentState uint32
	ParentCPU                int32
	Comm                     [16]byte
}

// nativeEndian returns the machine's byte order, which events have too.
func nativeEndian() binary.ByteOrder {
	one := uint16(1)
	if *(*byte)(unsafe.Pointer(&one)) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

// stateLetter returns the letter that ps shows for a state.
func stateLetter(state uint32) byte {
	if state == 0 {
		return 'R'
	}
	for bit, letter := range []byte("SDTt") {
		if state&(1<<bit) != 0 {
			return letter
		}
	}
	return '?'
}

// load opens and loads an object with the BTF in the file types, or with the kernel's own BTF if types is empty.
func load(object, types string) (*ebpf.Collection, error) {
	spec, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		return nil, err
	}
	var options ebpf.CollectionOptions
	if types != "" {
		if options.Programs.KernelTypes, err = btf.LoadSpec(types); err != nil {
			return nil, fmt.Errorf("%s: %w", types, err)
		}
	}
	return ebpf.NewCollectionWithOptions(spec, options)
}

// report prints events until there are count of them. It fails if fewer arrive within the given seconds.
func report(events *ebpf.Map, count int, seconds int) error {
	reader, err := perf.NewReader(events, 8*os.Getpagesize())
	if err != nil {
		return err
	}
	defer reader.Close()
	time.AfterFunc(time.Duration(seconds)*time.Second, func() { reader.Close() })
	fmt.Fprintln(os.Stderr, "agent: attached")
	for i := 0; i < count; i++ {
		record, err := reader.Read()
		if errors.Is(err, perf.ErrClosed) {
			return fmt.Errorf("%d of %d events within %d seconds", i, count, seconds)
		} else if err != nil {
			return err
		}
		var e event
		if err := binary.Read(bytes.NewReader(record.RawSample), nativeEndian(), &e); err != nil {
			return err
		}
		comm, _, _ := bytes.Cut(e.Comm[:], []byte{0})
		fmt.Printf("exec pid=%d comm=%s parent=%d state=%c cpu=%d\n", e.Pid, comm, e.Parent,
			stateLetter(e.ParentState), e.ParentCPU)
	}
	return nil
}

func run(object, types string, count, seconds int) error {
	if err := rlimit.RemoveMemlock(); err != nil { // it limits BPF before kernel 5.11
		return err
	}
	programs, err := load(object, types)
	if err != nil {
		return err
	}
	defer programs.Close()
	attached, err := link.AttachRawTracepoint(link.RawTracepointOptions{
		Name:    "sched_process_exec",
		Program: programs.Programs["report_exec"],
	})
	if err != nil {
		return err
	}
	defer attached.Close()
	return report(programs.Maps["events"], count, seconds)
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("agent: ")
	types := flag.String("btf", "", "file with this kernel's BTF (default: the kernel's own)")
	count := flag.Int("events", 1<<31-1, "exit after this many events")
	seconds := flag.Int("seconds", 1<<30, "fail if fewer events arrive within this many seconds")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *types, *count, *seconds); err != nil {
		log.Fatal(err)
	}
}
