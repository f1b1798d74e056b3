// Command velero is Velero. Under the name `folder-store` it is a Velero plugin that keeps backups in a local folder: a
// bucket is a folder in it, and a key is the path of a file in the bucket.
package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
	"github.com/vmware-tanzu/velero/pkg/cmd"
	"github.com/vmware-tanzu/velero/pkg/cmd/velero"
	"github.com/vmware-tanzu/velero/pkg/plugin/framework"
	"k8s.io/klog/v2"
	metrics "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// plugin is the file name of the plugin in `--plugin-dir`, and the part after the slash of a BackupStorageLocation's provider.
const plugin = "folder-store"

func main() {
	defer klog.Flush()
	name := filepath.Base(os.Args[0])
	if name == plugin || len(os.Args) > 1 && os.Args[1] == "run-plugins" {
		go endWithParent()
	}
	if name == plugin {
		store := func(logrus.FieldLogger) (any, error) { return &folder{}, nil }
		framework.NewServer().BindFlags(pflag.CommandLine).RegisterObjectStore("pat-operator.io/"+plugin, store).Serve()
		return
	}
	// No flag of Velero sets this port, and two servers on one machine cannot share it.
	metrics.DefaultBindAddress = "0"
	cmd.CheckError(velero.NewCommand(name).Execute())
}

// endWithParent ends a plugin whose server was killed: a killed server does not stop its plugins.
func endWithParent() {
	for parent := os.Getppid(); os.Getppid() == parent; {
		time.Sleep(100 * time.Millisecond)
	}
	os.Exit(1)
}

// folder is an object store.
type folder struct {
	root string
}

// Init reads `folder` from the BackupStorageLocation's `config`.
func (f *folder) Init(config map[string]string) error {
	f.root = config["folder"]
	if !filepath.IsAbs(f.root) {
		return errors.New("config.folder of the BackupStorageLocation must be an absolute path")
	}
	return nil
}

// PutObject renames a complete file into place, so that a reader never sees a part of it.
func (f *folder) PutObject(bucket, key string, body io.Reader) error {
	path := f.path(bucket, key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	partial, err := os.CreateTemp(f.root, ".partial-*")
	if err != nil {
		return err
	}
	defer os.Remove(partial.Name())
	_, err = io.Copy(partial, body)
	if err = errors.Join(err, partial.Close()); err != nil {
		return err
	}
	return os.Rename(partial.Name(), path)
}

func (f *folder) ObjectExists(bucket, key string) (bool, error) {
	_, err := os.Stat(f.path(bucket, key))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (f *folder) GetObject(bucket, key string) (io.ReadCloser, error) {
	return os.Open(f.path(bucket, key))
}

func (f *folder) ListCommonPrefixes(bucket, prefix, delimiter string) ([]string, error) {
	keys, err := f.ListObjects(bucket, prefix)
	var prefixes []string
	for _, key := range keys {
		before, _, found := strings.Cut(key[len(prefix):], delimiter)
		// Keys are sorted, so equal prefixes follow each other.
		if common := prefix + before + delimiter; found && (len(prefixes) == 0 || prefixes[len(prefixes)-1] != common) {
			prefixes = append(prefixes, common)
		}
	}
	return prefixes, err
}

func (f *folder) ListObjects(bucket, prefix string) ([]string, error) {
	root := f.path(bucket, "")
	var keys []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if key := filepath.ToSlash(relative); strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
		return err
	})
	// The bucket is empty.
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return keys, err
}

func (f *folder) DeleteObject(bucket, key string) error {
	return os.Remove(f.path(bucket, key))
}

// CreateSignedURL is for commands that download, such as `velero backup logs`. What they show is a file in the folder.
func (f *folder) CreateSignedURL(string, string, time.Duration) (string, error) {
	return "", errors.New("a folder has no addresses")
}

func (f *folder) path(bucket, key string) string {
	return filepath.Join(f.root, bucket, filepath.FromSlash(key))
}
