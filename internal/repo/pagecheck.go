package repo

// PageCheck is what a backup found of its pages' checksums while they were read (R7). A page that fails with an LSN at or
// after the backup's start is not counted: WAL has a full image of it, and replay writes it anew.
type PageCheck struct {
	Checked int64 `json:"checked"` // pages of relations
	// Corrupt pages are wrong in the backup, and replay does not mend them.
	Corrupt int64 `json:"corrupt"`
	// Unsure are pages that failed and could not be read a second time: torn by a write at that moment, or corrupt.
	Unsure int64 `json:"unsure"`
	// Torn pages failed with an LSN before the backup's start, and were seen to change after it: replay writes them anew.
	Torn int64 `json:"torn"`
	// Pages names them, up to some thousands of each state.
	Pages []FailedPage `json:"pages,omitempty"`
}

// PageState says what became of a page that failed its checksum.
type PageState string

// The states of failed pages.
const (
	PageCorrupt PageState = "corrupt"
	PageUnsure  PageState = "unsure"
	PageTorn    PageState = "torn"
)

// FailedPage is one page that failed its checksum in a backup.
type FailedPage struct {
	File    string    `json:"file"`  // relative to the data directory
	Block   int64     `json:"block"` // number in the relation's fork
	State   PageState `json:"state"`
	Problem string    `json:"problem"`
}

// CorruptPages counts the pages of the backup that are known to be corrupt. Such a backup can be restored, but it is not
// sound, and never counts as verified (R7).
func (m *Manifest) CorruptPages() int64 {
	if m.PageCheck == nil {
		return 0
	}
	return m.PageCheck.Corrupt
}

// UnsurePages counts the pages of which the backup does not know whether they are corrupt.
func (m *Manifest) UnsurePages() int64 {
	if m.PageCheck == nil {
		return 0
	}
	return m.PageCheck.Unsure
}
