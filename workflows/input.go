package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// maxName bounds names that become part of a task queue or a search attribute. A server answers a queue's name that is
// too long by failing the workflow task, which is then tried for ever, and an attribute that is too long by terminating
// the run without a reason (seen with server 1.32.1). This refuses them once and says why.
const maxName = 255

// decode reads the one argument of a workflow strictly and validates it. Every error is an InvalidInput.
func decode[T any, P interface {
	*T
	Validate() error
}](raw converter.RawValue) (T, error) {
	var data []byte
	if p := raw.Payload(); p != nil {
		switch encoding := string(p.GetMetadata()[converter.MetadataEncoding]); encoding {
		case converter.MetadataEncodingJSON, converter.MetadataEncodingNil:
			data = p.GetData()
		default:
			var none T
			return none, invalidInput(fmt.Sprintf("input is encoded as %q: send one JSON object as %q",
				encoding, converter.MetadataEncodingJSON))
		}
	}
	//workflowcheck:ignore // decoding into a struct does the same each time
	in, err := contract.Decode[T](data)
	if err != nil {
		return in, invalidInput(err.Error())
	}
	if err := P(&in).Validate(); err != nil {
		return in, invalidInput(err.Error())
	}
	return in, nil
}

// checkName refuses names that Temporal itself would not take.
func checkName(field, value string) error {
	if len(value) > maxName {
		return invalidInput(fmt.Sprintf("field %q is %d bytes long: at most %d are possible", field, len(value), maxName))
	}
	return nil
}

// absolute turns a relative time target into the moment that it means now, for this run and all its attempts.
func absolute(ctx workflow.Context, t contract.Target) (contract.Target, error) {
	if t.Kind != targetTime {
		return t, nil
	}
	at, err := contract.ParseTime(t.Value, workflow.Now(ctx))
	if err != nil {
		return t, invalidInput(err.Error())
	}
	t.Value = at.Format(time.RFC3339Nano)
	return t, nil
}

// Kinds of targets that the workflows themselves know.
const (
	targetTime   = "time"
	targetLatest = "latest"
)
