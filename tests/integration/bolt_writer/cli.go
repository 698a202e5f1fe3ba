package main

// What the bbolt command prints, for `syncd inspect` to be held against: Debian packages the library
// without its command. The words are those of bbolt's command line, the numbers the library's.
//
//	bolt_writer bbolt check|buckets|stats FILE [PREFIX]
//	bolt_writer bbolt keys FILE BUCKET... | get FILE BUCKET... KEY

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	bolt "go.etcd.io/bbolt"
)

func cliCheck(tx *bolt.Tx) error {
	count := 0
	for err := range tx.Check() {
		fmt.Println(err)
		count++
	}
	if count > 0 {
		fmt.Printf("%d errors found\n", count)
		return errors.New("invalid value")
	}
	fmt.Println("OK")
	return nil
}

func cliBuckets(tx *bolt.Tx) error {
	return tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		fmt.Println(string(name))
		return nil
	})
}

func cliBucket(tx *bolt.Tx, words []string) (*bolt.Bucket, error) {
	b := tx.Bucket([]byte(words[0]))
	for _, word := range words[1:] {
		if b != nil {
			b = b.Bucket([]byte(word))
		}
	}
	if b == nil {
		return nil, errors.New("bucket not found")
	}
	return b, nil
}

func cliKeys(tx *bolt.Tx, words []string) error {
	b, err := cliBucket(tx, words)
	if err != nil {
		return err
	}
	return b.ForEach(func(key, _ []byte) error {
		fmt.Println(string(key))
		return nil
	})
}

func cliGet(tx *bolt.Tx, words []string) error {
	b, err := cliBucket(tx, words[:len(words)-1])
	if err != nil {
		return err
	}
	value := b.Get([]byte(words[len(words)-1]))
	if value == nil {
		return errors.New("key not found")
	}
	fmt.Println(string(value))
	return nil
}

func share(part, whole int) int {
	if whole == 0 {
		return 0
	}
	return int(float32(part) * 100.0 / float32(whole))
}

func cliStats(tx *bolt.Tx, prefix string) error {
	var s bolt.BucketStats
	count := 0
	err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		if bytes.HasPrefix(name, []byte(prefix)) {
			s.Add(b.Stats())
			count++
		}
		return nil
	})
	fmt.Printf("Aggregate statistics for %d buckets\n\n", count)
	fmt.Println("Page count statistics")
	fmt.Printf("\tNumber of logical branch pages: %d\n", s.BranchPageN)
	fmt.Printf("\tNumber of physical branch overflow pages: %d\n", s.BranchOverflowN)
	fmt.Printf("\tNumber of logical leaf pages: %d\n", s.LeafPageN)
	fmt.Printf("\tNumber of physical leaf overflow pages: %d\n", s.LeafOverflowN)
	fmt.Println("Tree statistics")
	fmt.Printf("\tNumber of keys/value pairs: %d\n", s.KeyN)
	fmt.Printf("\tNumber of levels in B+tree: %d\n", s.Depth)
	fmt.Println("Page size utilization")
	fmt.Printf("\tBytes allocated for physical branch pages: %d\n", s.BranchAlloc)
	fmt.Printf("\tBytes actually used for branch data: %d (%d%%)\n", s.BranchInuse,
		share(s.BranchInuse, s.BranchAlloc))
	fmt.Printf("\tBytes allocated for physical leaf pages: %d\n", s.LeafAlloc)
	fmt.Printf("\tBytes actually used for leaf data: %d (%d%%)\n", s.LeafInuse,
		share(s.LeafInuse, s.LeafAlloc))
	fmt.Println("Bucket statistics")
	fmt.Printf("\tTotal number of buckets: %d\n", s.BucketN)
	fmt.Printf("\tTotal number on inlined buckets: %d (%d%%)\n", s.InlineBucketN,
		share(s.InlineBucketN, s.BucketN))
	fmt.Printf("\tBytes used for inlined buckets: %d (%d%%)\n", s.InlineBucketInuse,
		share(s.InlineBucketInuse, s.LeafInuse))
	return err
}

func cli(args []string) error {
	if len(args) < 2 {
		return errors.New("bbolt VERB FILE ...")
	}
	verb, path, words := args[0], args[1], args[2:]
	return view(path, func(tx *bolt.Tx) error {
		switch {
		case verb == "check":
			return cliCheck(tx)
		case verb == "buckets":
			return cliBuckets(tx)
		case verb == "keys" && len(words) > 0:
			return cliKeys(tx, words)
		case verb == "get" && len(words) > 1:
			return cliGet(tx, words)
		case verb == "stats":
			return cliStats(tx, strings.Join(words, ""))
		}
		return fmt.Errorf("unknown question %s", verb)
	})
}
