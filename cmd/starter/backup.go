package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/internal/contract"
)

func newBackupCommand(a *app) *cobra.Command {
	var in contract.BackupInput
	var local, detach bool
	var id string
	cmd := &cobra.Command{
		Use:   "backup CLUSTER",
		Short: "Take a backup",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Cluster = args[0]
			if err := in.Validate(); err != nil {
				return &usageError{err}
			}
			var res contract.BackupResult
			if local {
				set, err := a.settings(in.Cluster)
				if err != nil {
					return err
				}
				run := a.localRun("backup", in.Cluster)
				res, err = activities.NewRunner(set).TakeBackup(cmd.Context(), contract.TakeBackupInput{Cluster: in.Cluster, Type: contract.TypeFull}, run)
				if err != nil {
					return err
				}
				return a.printBackup(res)
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			wid, err := a.run(cmd.Context(), c, start{workflow: contract.BackupWorkflow, verb: "backup", cluster: in.Cluster, id: id,
				input: in, summary: "Backup of " + in.Cluster}, detach, &res)
			if err != nil {
				return err
			}
			if detach {
				return a.printStarted(wid)
			}
			return a.printBackup(res)
		},
	}
	cmd.Flags().StringVar(&in.Type, "type", contract.TypeFull, "full, incremental or logical")
	cmd.Flags().BoolVar(&local, "local", false, "run here, without Temporal")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait")
	cmd.Flags().StringVar(&id, "workflow-id", "", "name of the run")
	return cmd
}

// localRun identifies a run without Temporal.
func (a *app) localRun(verb, cluster string) activities.Run {
	last := ""
	return activities.Run{
		WorkflowID: fmt.Sprintf("local-%s-%d", workflowID(verb, cluster, time.Now()), os.Getpid()),
		Progress: func(p contract.Progress) {
			if line := progressLine(p); line != last {
				last = line
				a.note("%s", line)
			}
		},
	}
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (a *app) printStarted(id string) error {
	if a.json {
		return a.printJSON(map[string]string{"workflowId": id})
	}
	_, err := fmt.Fprintln(a.stdout, id)
	return err
}

func (a *app) printBackup(r contract.BackupResult) error {
	if a.json {
		return a.printJSON(r)
	}
	_, err := fmt.Fprintf(a.stdout, "backup %s of %s: %.1f MB in %.1f s, %.1f MB stored, WAL %s to %s\n",
		r.BackupID, r.Cluster, float64(r.SourceBytes)/1e6, r.Seconds, float64(r.StoredBytes)/1e6, r.StartLSN, r.StopLSN)
	return err
}
