package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.temporal.io/sdk/client"

	"lifeboat/dbcore"
	"lifeboat/internal/contract"
	"lifeboat/internal/pginstance"
)

// verbs are the four, each with its proof that the data is equal.
func verbs() map[string]verb {
	return map[string]verb{
		"backup": {
			contract.BackupWorkflow, func(*campaign, *lane) any { return contract.BackupInput{Cluster: "c1"} }, checkBackup,
		},
		"restore": {contract.RestoreWorkflow, func(c *campaign, l *lane) any {
			return contract.RestoreInput{
				Cluster: "c1", Host: laneHost, TargetDir: l.restored(), Backup: c.backup, Start: true, Target: contract.Target{Kind: "name", Value: truth},
			}
		}, checkRestore},
		"verify": {contract.VerifyWorkflow, func(c *campaign, _ *lane) any {
			level := 5
			return contract.VerifyInput{Cluster: "c1", Backup: c.backup, Level: &level}
		}, checkVerify},
		"drill": {contract.DrillWorkflow, func(c *campaign, _ *lane) any {
			return contract.DrillInput{
				Cluster: "c1", Backup: c.backup, Checks: []contract.SQLCheck{{Name: "the rows", SQL: digest, Expect: c.digest}},
			}
		}, checkDrill},
	}
}

// restored is where the lane's restores go.
func (l *lane) restored() string { return filepath.Join(l.dir, "restored") }

// checkBackup restores what was backed up and compares its rows. No intent and no lease is left that blocks.
func checkBackup(ctx context.Context, c *campaign, l *lane, run client.WorkflowRun, id string) error {
	var res contract.BackupResult
	if err := run.Get(ctx, &res); err != nil {
		return err
	}
	m, err := c.repo.Manifest(ctx, "c1", res.BackupID)
	if err != nil || m.WorkflowID != id {
		return fmt.Errorf("the manifest of %s: %w", res.BackupID, err)
	}
	intents, err := c.repo.Intents(ctx, "c1")
	if err != nil || len(intents) > 0 {
		return fmt.Errorf("intents are left: %v %w", intents, err)
	}
	lease, err := c.repo.AcquireLease(ctx, "c1", "backup", "probe", "test", time.Second)
	if err != nil {
		return err
	}
	if err := lease.Release(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(l.bin, "lifeboat"), "restore", "c1", "--config", l.config, "--backup", res.BackupID,
		"--target-dir", l.restored(), "--to-immediate", "--start", "--local", "--json")
	var stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.SysProcAttr, cmd.Stderr = "/", l.env, l.owner.SysProcAttr(), &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("restore %s: %w: %s", res.BackupID, err, stderr.String())
	}
	return c.compare(ctx, l)
}

func checkRestore(ctx context.Context, c *campaign, l *lane, run client.WorkflowRun, _ string) error {
	var res contract.RestoreResult
	if err := run.Get(ctx, &res); err != nil {
		return err
	}
	if res.Reached == nil || res.BackupID != c.backup {
		return fmt.Errorf("restored is %+v", res)
	}
	return c.compare(ctx, l)
}

// compare looks at the rows of the restored server, and ends it.
func (c *campaign) compare(ctx context.Context, l *lane) error {
	in, err := pginstance.Attach(l.restored(), pginstance.AttachOptions{})
	if err != nil {
		return err
	}
	got, err := rowsOf(ctx, in)
	if err == nil && got != c.digest {
		err = fmt.Errorf("rows are %s, want %s", got, c.digest)
	}
	return errors.Join(err, in.Stop(context.WithoutCancel(ctx), pginstance.Immediate), os.RemoveAll(l.restored()))
}

func rowsOf(ctx context.Context, in *pginstance.Instance) (string, error) {
	cfg, err := dbcore.ParseDSN(in.ConnString("", ""))
	if err != nil {
		return "", err
	}
	conn, err := dbcore.Connect(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return dbcore.One[string](ctx, conn, digest)
}

func checkVerify(ctx context.Context, c *campaign, _ *lane, run client.WorkflowRun, _ string) error {
	var res contract.VerifyResult
	if err := run.Get(ctx, &res); err != nil {
		return err
	}
	if res.Verdict != contract.Pass || res.Level != 5 || len(res.Backups) != 1 || res.Backups[0].BackupID != c.backup {
		return fmt.Errorf("verified: %s", shown(res))
	}
	return nil
}

func checkDrill(ctx context.Context, c *campaign, _ *lane, run client.WorkflowRun, _ string) error {
	var res contract.DrillResult
	if err := run.Get(ctx, &res); err != nil {
		return err
	}
	var rep contract.Report
	err := c.repo.GetDocument(ctx, "c1", "reports/"+res.DrillID, &rep)
	if err != nil || res.Verdict != contract.Pass || rep.Verdict != contract.Pass || !rep.CleanedUp || res.Level != 7 {
		return fmt.Errorf("drilled: %s, report %s, %w", shown(res), shown(rep), err)
	}
	return nil
}

func shown(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}
