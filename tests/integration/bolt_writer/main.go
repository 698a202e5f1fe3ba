// A writer and a judge of bolt databases, built with Debian's golang-github-coreos-bbolt-dev:
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o bolt_writer .
//
//	bolt_writer write [options] FILE  fills FILE, prints "ready", and commits until its stdin ends,
//	                                  or --commits times; then prints what it did as JSON
//	bolt_writer check FILE...         bbolt's own Tx.Check, and the digest; exit 1 when one is bad
//	bolt_writer dump FILE             every item, one a line, in bbolt's order
//	bolt_writer stats FILE            Bucket.Stats over the top buckets, added up
//	bolt_writer commit FILE           one more commit, as an owner would after a restore
//	bolt_writer bbolt VERB FILE ...   what the bbolt command prints (cli.go)
//	bolt_writer etcd FILE...          Tx.Check of etcd's own databases, and their revisions: none
//	                                  is missing, and each holds what etcd_load.py put
//
// The database holds a digest of itself, kept up to date within each transaction: the sum of a hash
// of every item (path, key, value), so that any mixture of two states is seen.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

var digestBucket = []byte("digest")

type digest struct{ A, B uint64 }

func itemHash(path string, key, value []byte) digest {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(path), key, value} {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	s := h.Sum(nil)
	return digest{binary.LittleEndian.Uint64(s), binary.LittleEndian.Uint64(s[8:])}
}

func (d *digest) add(o digest)      { d.A += o.A; d.B += o.B }
func (d *digest) subtract(o digest) { d.A -= o.A; d.B -= o.B }

func (d digest) bytes() []byte {
	b := make([]byte, 16)
	binary.LittleEndian.PutUint64(b, d.A)
	binary.LittleEndian.PutUint64(b[8:], d.B)
	return b
}

// The sum over a bucket and all buckets in it. A bucket counts by its name and sequence.
func sumBucket(path string, b *bolt.Bucket) digest {
	var d digest
	_ = b.ForEach(func(k, v []byte) error {
		if v != nil {
			d.add(itemHash(path, k, v))
			return nil
		}
		child := b.Bucket(k)
		var sequence [8]byte
		binary.LittleEndian.PutUint64(sequence[:], child.Sequence())
		d.add(itemHash(path+"/", k, sequence[:]))
		d.add(sumBucket(path+"/"+hex.EncodeToString(k), child))
		return nil
	})
	return d
}

func sumAll(tx *bolt.Tx) digest {
	var d digest
	_ = tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		if !bytes.Equal(name, digestBucket) {
			d.add(sumBucket(hex.EncodeToString(name), b))
		}
		return nil
	})
	return d
}

type writer struct {
	db     *bolt.DB
	random *rand.Rand
	opt    options
	sum    digest
}

type options struct {
	pageSize, keys, puts, big, commits int
	rate                               float64
	seed                               int64
	noSync, noFreelist, reader, json   bool
}

func (w *writer) value() []byte {
	v := w.randomValue()
	if !w.opt.json {
		return v
	}
	text, _ := json.Marshal(map[string]interface{}{"ID": w.random.Int63(),
		"State": map[string]interface{}{"StateType": w.random.Intn(5), "Message": ""},
		"Spec":  v})
	return text
}

func (w *writer) randomValue() []byte {
	n := 20 + w.random.Intn(180)
	switch w.random.Intn(400) {
	case 0, 1, 2:
		n = w.random.Intn(4 * w.opt.pageSize)
	case 3:
		n = w.random.Intn(w.opt.big + 1)
	}
	v := make([]byte, n)
	w.random.Read(v)
	return v
}

func (w *writer) put(path string, b *bolt.Bucket, key []byte) error {
	if old := b.Get(key); old != nil {
		w.sum.subtract(itemHash(path, key, old))
	}
	v := w.value()
	w.sum.add(itemHash(path, key, v))
	return b.Put(key, v)
}

func (w *writer) remove(path string, b *bolt.Bucket, key []byte) error {
	old := b.Get(key)
	if old == nil {
		return nil
	}
	w.sum.subtract(itemHash(path, key, old))
	return b.Delete(key)
}

func (w *writer) key() []byte {
	i := w.random.Intn(w.opt.keys)
	if i%1000 == 7 { // some long keys
		return []byte(fmt.Sprintf("key-%08d-%0*d", i, 1+i%700, i))
	}
	return []byte(fmt.Sprintf("key-%08d", i))
}

// A small bucket under "jobs" is inline as long as it has few keys, and nested ones lie deeper.
func (w *writer) touchJob(tx *bolt.Tx) error {
	jobs := tx.Bucket([]byte("jobs"))
	name := []byte(fmt.Sprintf("job-%04d", w.random.Intn(1+w.opt.keys/50)))
	path := hex.EncodeToString([]byte("jobs"))
	inner := path + "/" + hex.EncodeToString(name)
	var sequence [8]byte
	if old := jobs.Bucket(name); old != nil {
		binary.LittleEndian.PutUint64(sequence[:], old.Sequence())
		w.sum.subtract(itemHash(path+"/", name, sequence[:]))
		w.sum.subtract(sumBucket(inner, old))
		if w.random.Intn(3) == 0 {
			return jobs.DeleteBucket(name)
		}
	}
	job, err := jobs.CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	if _, err = job.NextSequence(); err != nil {
		return err
	}
	var scratch digest
	w.sum, scratch = scratch, w.sum // what follows is counted by sumBucket below
	for i := w.random.Intn(12); i >= 0 && err == nil; i-- {
		err = w.put(inner, job, []byte(fmt.Sprintf("event-%02d", w.random.Intn(40))))
	}
	for at := job; err == nil && w.random.Intn(4) == 0; {
		if at, err = at.CreateBucketIfNotExists([]byte("zz-nested")); err == nil {
			err = w.put("", at, []byte(fmt.Sprintf("deep-%d", w.random.Intn(30))))
		}
	}
	w.sum = scratch
	binary.LittleEndian.PutUint64(sequence[:], job.Sequence())
	w.sum.add(itemHash(path+"/", name, sequence[:]))
	w.sum.add(sumBucket(inner, job))
	return err
}

func (w *writer) commit(puts int) error {
	before := w.sum
	err := w.db.Update(func(tx *bolt.Tx) error {
		name := []byte("items")
		path := hex.EncodeToString(name)
		items := tx.Bucket(name)
		for i := 0; i < puts; i++ {
			act := w.put
			if w.random.Intn(4) == 0 {
				act = w.remove
			}
			if err := act(path, items, w.key()); err != nil {
				return err
			}
		}
		for i := 0; i <= puts/20; i++ {
			if err := w.touchJob(tx); err != nil {
				return err
			}
		}
		return tx.Bucket(digestBucket).Put([]byte("sum"), w.sum.bytes())
	})
	if err != nil {
		w.sum = before
	}
	return err
}

func (w *writer) fill() error {
	err := w.db.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{"items", "jobs", "empty", string(digestBucket)} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		w.sum = sumAll(tx)
		return nil
	})
	for done := 0; done < w.opt.keys && err == nil; done += 2000 {
		n := w.opt.keys - done
		if n > 2000 {
			n = 2000
		}
		err = w.commit(n)
	}
	return err
}

// Pins old states now and then, as an owner's long reads do.
func (w *writer) holdReaders(stop *int32) {
	for atomic.LoadInt32(stop) == 0 {
		_ = w.db.View(func(*bolt.Tx) error {
			time.Sleep(30 * time.Millisecond)
			return nil
		})
		time.Sleep(10 * time.Millisecond)
	}
}

func (w *writer) run() error {
	var stop int32
	if w.opt.commits < 0 {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			atomic.StoreInt32(&stop, 1)
		}()
	}
	if w.opt.reader {
		go w.holdReaders(&stop)
	}
	begun, commits := time.Now(), 0
	for atomic.LoadInt32(&stop) == 0 && (w.opt.commits < 0 || commits < w.opt.commits) {
		if w.opt.rate > 0 {
			due := begun.Add(time.Duration(float64(commits) / w.opt.rate * float64(time.Second)))
			if wait := time.Until(due); wait > 0 {
				if wait > 20*time.Millisecond {
					wait = 20 * time.Millisecond // so that the end of stdin is seen
				}
				time.Sleep(wait)
				continue
			}
		}
		if err := w.commit(w.opt.puts); err != nil {
			return err
		}
		commits++
	}
	atomic.StoreInt32(&stop, 1)
	return json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"commits": commits, "seconds": time.Since(begun).Seconds()})
}

func write(args []string) error {
	var o options
	f := flag.NewFlagSet("write", flag.ExitOnError)
	f.IntVar(&o.pageSize, "page-size", 4096, "")
	f.IntVar(&o.keys, "keys", 1000, "how many different keys there are")
	f.IntVar(&o.puts, "puts", 10, "changes per commit")
	f.IntVar(&o.big, "big", 300000, "the largest value")
	f.IntVar(&o.commits, "commits", -1, "end after so many")
	f.Float64Var(&o.rate, "rate", 0, "commits per second; 0: as many as can be")
	f.Int64Var(&o.seed, "seed", 1, "")
	f.BoolVar(&o.noSync, "no-sync", false, "do not fsync")
	f.BoolVar(&o.noFreelist, "no-freelist", false, "do not store the freelist")
	f.BoolVar(&o.reader, "reader", false, "long reads beside the commits")
	f.BoolVar(&o.json, "json", false, "values are JSON")
	_ = f.Parse(args)
	if f.NArg() != 1 {
		return fmt.Errorf("one FILE, please")
	}
	db, err := bolt.Open(f.Arg(0), 0600, &bolt.Options{PageSize: o.pageSize, NoSync: o.noSync,
		NoFreelistSync: o.noFreelist, Timeout: time.Second})
	if err != nil {
		return err
	}
	db.AllocSize = 16 * o.pageSize // the file grows often
	w := &writer{db: db, random: rand.New(rand.NewSource(o.seed)), opt: o}
	if err = w.fill(); err == nil {
		fmt.Println("ready")
		err = w.run()
	}
	if closed := db.Close(); err == nil {
		err = closed
	}
	return err
}

func view(path string, f func(tx *bolt.Tx) error) error {
	db, err := bolt.Open(path, 0600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(f)
}

func checkDigest(tx *bolt.Tx) error {
	b := tx.Bucket(digestBucket)
	if b == nil {
		return fmt.Errorf("no digest")
	}
	if want, have := b.Get([]byte("sum")), sumAll(tx).bytes(); !bytes.Equal(want, have) {
		return fmt.Errorf("digest is %x, contents have %x", want, have)
	}
	return nil
}

// The keys of etcd's bucket "key" are revisions: 8 bytes of main, '_', 8 bytes of sub. The load puts
// one key after the other, so no main revision may be missing. Its values end with the SHA-256 of
// what is before, back to "load:".
func checkEtcd(tx *bolt.Tx) error {
	b := tx.Bucket([]byte("key"))
	if b == nil {
		return fmt.Errorf("no bucket \"key\"")
	}
	var last, puts uint64
	err := b.ForEach(func(k, v []byte) error {
		if len(k) < 17 {
			return fmt.Errorf("%x is no revision", k)
		}
		main := binary.BigEndian.Uint64(k)
		if last != 0 && main != last+1 {
			return fmt.Errorf("revision %d follows %d", main, last)
		}
		last = main
		if at := bytes.Index(v, []byte("load:")); at >= 0 {
			if puts++; len(v) < at+32 {
				return fmt.Errorf("revision %d is cut", main)
			}
			sum := sha256.Sum256(v[at : len(v)-32])
			if !bytes.Equal(sum[:], v[len(v)-32:]) {
				return fmt.Errorf("revision %d is not what was put", main)
			}
		}
		return nil
	})
	fmt.Println("puts", puts)
	return err
}

func checkOne(path string, contents func(tx *bolt.Tx) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return view(path, func(tx *bolt.Tx) error {
		var first error
		for e := range tx.Check() {
			if first == nil {
				first = e
			}
		}
		if first != nil {
			return first
		}
		return contents(tx)
	})
}

// Tx.Check follows every loop of a damaged tree, so it is given little stack and time.
func check(paths []string, contents func(tx *bolt.Tx) error) error {
	var bad error
	debug.SetMaxStack(8 << 20)
	debug.SetTraceback("none")
	time.AfterFunc(time.Duration(len(paths))*10*time.Second, func() {
		fmt.Println("does not come to an end")
		os.Exit(1)
	})
	for _, path := range paths {
		if err := checkOne(path, contents); err != nil {
			bad = fmt.Errorf("%s: %w", path, err)
			fmt.Println(bad)
		}
	}
	return bad
}

func dumpBucket(path string, b *bolt.Bucket) {
	_ = b.ForEach(func(k, v []byte) error {
		name := path + "/" + hex.EncodeToString(k)
		if v != nil {
			fmt.Printf("%s %d %x\n", name, len(v), sha256.Sum256(v))
			return nil
		}
		fmt.Printf("%s bucket %d\n", name, b.Bucket(k).Sequence())
		dumpBucket(name, b.Bucket(k))
		return nil
	})
}

func dump(path string) error {
	return view(path, func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			path := "/" + hex.EncodeToString(name)
			fmt.Printf("%s bucket %d\n", path, b.Sequence())
			dumpBucket(path, b)
			return nil
		})
	})
}

func stats(path string) error {
	return view(path, func(tx *bolt.Tx) error {
		var s bolt.BucketStats
		err := tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			s.Add(b.Stats())
			return nil
		})
		fmt.Println(s.BranchPageN, s.BranchOverflowN, s.LeafPageN, s.LeafOverflowN, s.KeyN,
			s.Depth, s.BranchAlloc, s.BranchInuse, s.LeafAlloc, s.LeafInuse, s.BucketN,
			s.InlineBucketN, s.InlineBucketInuse)
		return err
	})
}

func commitOnce(path string) error {
	db, err := bolt.Open(path, 0600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	w := &writer{db: db, random: rand.New(rand.NewSource(99)),
		opt: options{pageSize: db.Info().PageSize, keys: 1000, big: 1000}}
	_ = db.View(func(tx *bolt.Tx) error {
		w.sum = sumAll(tx)
		return nil
	})
	err = w.commit(20)
	if closed := db.Close(); err == nil {
		err = closed
	}
	return err
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: bolt_writer write|check|dump|stats|commit|etcd ... FILE")
		os.Exit(2)
	}
	var err error
	switch args := os.Args[2:]; os.Args[1] {
	case "write":
		err = write(args)
	case "check":
		err = check(args, checkDigest)
	case "etcd":
		err = check(args, checkEtcd)
	case "dump":
		err = dump(args[0])
	case "stats":
		err = stats(args[0])
	case "commit":
		err = commitOnce(args[0])
	case "bbolt":
		err = cli(args)
	default:
		err = fmt.Errorf("unknown mode %s", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bolt_writer:", err)
		os.Exit(1)
	}
}
